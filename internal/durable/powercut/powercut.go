// SPDX-License-Identifier: Apache-2.0

// Package powercut finds out, for tests, what a power cut may leave of the files that
// were written by package durable: every state that the fsyncs up to then allow.
//
// [Record] follows what is done below a directory. The [Recording] that Stop returns
// has [Recording.Cuts] put every state that a cut at any moment may have left into a
// directory of its own, for the test to look at. [Recording.Kills] does the same for
// SIGKILL: the files are as the process saw them, but are not any more durable for it,
// so that what the next process does can be recorded on top, and the power be cut then.
//
// The file system is the least that POSIX promises. A file's data are on the disk after
// fsync of the file, a name after fsync of its directory. Before, each may be there or
// not, in no order, and data in part.
package powercut

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/durable"
)

// Dir returns a directory for the test that costs no time to sync, where the system
// has such.
func Dir(t testing.TB) string {
	t.Helper()
	const memory = "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "keyturn-powercut-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // memory, and gone with the machine
	return dir
}

// A Recorder follows what is done below a directory.
type Recorder struct {
	t    testing.TB
	root string
	stop func()

	mu sync.Mutex
	r  *Recording // guarded by mu
}

// A Recording is what was done, step by step.
type Recording struct {
	t     testing.TB
	start *disk
	steps []step
}

type step struct {
	durable.Step             // its paths relative to the root
	perm         fs.FileMode // of what was opened
	acknowledged int         // before the step
}

// Record follows what is done below root, which exists. One test at a time can.
func Record(t testing.TB, root string) *Recorder {
	t.Helper()
	d, err := readDisk(root)
	if err != nil {
		t.Fatal(err)
	}
	return record(t, root, d)
}

func record(t testing.TB, root string, d *disk) *Recorder {
	r := &Recorder{t: t, root: root, r: &Recording{t: t, start: d}}
	r.stop = durable.Observe(r.see)
	t.Cleanup(func() {
		if r.stop != nil {
			r.stop()
		}
	})
	return r
}

func (r *Recorder) see(s durable.Step) {
	var ok bool
	if s.Path, ok = r.below(s.Path); !ok {
		return
	}
	if s.To, ok = r.below(s.To); !ok && (s.Op == durable.OpRename || s.Op == durable.OpLink) ||
		ok && filepath.Dir(s.To) != filepath.Dir(s.Path) {
		r.t.Errorf("powercut: %s leaves its directory", s.Path)
		return
	}
	s.Data = bytes.Clone(s.Data)
	var perm fs.FileMode
	if s.Op == durable.OpOpen {
		if info, err := os.Stat(filepath.Join(r.root, s.Path)); err == nil {
			perm = info.Mode().Perm()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r.steps = append(r.r.steps, step{s, perm, r.acknowledgedLocked()})
}

func (r *Recorder) below(path string) (string, bool) {
	rel, err := filepath.Rel(r.root, path)
	return rel, err == nil && path != "" && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// Acknowledge says that from now on a power cut must not lose the n-th.
func (r *Recorder) Acknowledge(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r.steps = append(r.r.steps, step{acknowledged: n})
}

func (r *Recorder) acknowledgedLocked() int {
	if len(r.r.steps) == 0 {
		return 0
	}
	return r.r.steps[len(r.r.steps)-1].acknowledged
}

// Stop ends the recording. It fails the test if a file was written by another way
// than package durable's. Empty files, which locks are, may be.
func (r *Recorder) Stop() *Recording {
	r.t.Helper()
	r.stop()
	r.stop = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.r.at(len(r.r.steps))
	is, err := readDisk(r.root)
	if err != nil {
		r.t.Fatal(err)
	}
	known, found := d.visible(), is.visible()
	for path, f := range found {
		if k, ok := known[path]; !ok && len(f.data) > 0 || ok && !bytes.Equal(k.data, f.data) {
			r.t.Errorf("powercut: %s was written past package durable", path)
		}
	}
	for path := range known {
		if _, ok := found[path]; !ok {
			r.t.Errorf("powercut: %s was removed past package durable", path)
		}
	}
	return r.r
}

// at returns the disk after the first n steps.
func (r *Recording) at(n int) *disk {
	d := r.start.clone()
	for _, s := range r.steps[:n] {
		d.take(s.Step, s.perm)
	}
	return d
}

// visible returns what the process sees.
func (d *disk) visible() state {
	s := make(state)
	var add func(n *node, at string)
	add = func(n *node, at string) {
		for name, child := range n.now() {
			where := filepath.Join(at, name)
			s[where] = file{child.data, child.perm, child.dir}
			if child.dir {
				add(child, where)
			}
		}
	}
	add(d.root, "")
	return s
}
