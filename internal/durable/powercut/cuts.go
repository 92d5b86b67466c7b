// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A Cut is what a power cut has left.
type Cut struct {
	Dir string
	// Acknowledged is the last that must be there.
	Acknowledged int
	// After is the last step before the cut.
	After string
	files state
}

// String says what was done last, and what is left.
func (c Cut) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "power cut after %s, with %d acknowledged; it leaves", c.After, c.Acknowledged)
	for _, path := range slices.Sorted(maps.Keys(c.files)) {
		fmt.Fprintf(&b, " %s (%d)", path, len(c.files[path].data))
	}
	return b.String()
}

// Cuts calls look with each state that a power cut may have left, and returns how
// many there are. States that look alike are looked at once.
func (r *Recording) Cuts(look func(Cut)) int {
	r.t.Helper()
	seen := make(map[[sha256.Size]byte]bool)
	d, after, acknowledged := r.start.clone(), "the start", 0
	for i := -1; i < len(r.steps); i++ {
		if i >= 0 {
			s := r.steps[i]
			d.take(s.Step, s.perm)
			acknowledged = s.acknowledged
			if s.Op != "" {
				after = fmt.Sprintf("step %d (%s %s)", i, s.Path, s.Op)
			}
		}
		all, err := d.states()
		if err != nil {
			r.t.Fatalf("powercut: after %s: %v", after, err)
		}
		for _, s := range all {
			if sum := s.sum(acknowledged); !seen[sum] {
				seen[sum] = true
				c := Cut{Dir(r.t), acknowledged, after, s}
				s.write(r.t, c.Dir)
				look(c)
				_ = os.RemoveAll(c.Dir) // the test's end does, too
			}
		}
	}
	return len(seen)
}

// settled reports whether a power cut leaves what the process sees.
func (d *disk) settled() bool {
	for _, n := range d.nodes() {
		if n.dir && !maps.Equal(lasting(maps.Clone(n.names)), lasting(n.now())) {
			return false
		}
	}
	for path, f := range d.visible() {
		if n := d.at(path); !f.dir && n.unsynced() && !temporary(path) {
			return false
		}
	}
	return true
}

func lasting(names map[string]*node) map[string]*node {
	maps.DeleteFunc(names, func(name string, _ *node) bool { return temporary(name) })
	return names
}

func temporary(path string) bool { return strings.HasSuffix(path, ".tmp") }

// A Kill is what a killed process has left.
type Kill struct {
	Dir string
	// Acknowledged is the last that must be there.
	Acknowledged int
	// After is the last step before the kill.
	After string
	t     testing.TB
	disk  *disk
}

// Record follows what is done next. It may be called once.
func (k Kill) Record() *Recorder {
	r := record(k.t, k.Dir, k.disk)
	r.Acknowledge(k.Acknowledged)
	return r
}

// Kills calls look with what is there when the process is killed after each step that
// leaves more than is on the disk for sure. Temporary files do not count.
func (r *Recording) Kills(look func(Kill)) {
	r.t.Helper()
	for i, s := range r.steps {
		if s.Op == "" && i < len(r.steps)-1 {
			continue // what was acknowledged, the next step knows
		}
		d := r.at(i + 1)
		if d.settled() {
			continue
		}
		k := Kill{Dir(r.t), s.acknowledged, fmt.Sprintf("step %d (%s %s)", i, s.Path, s.Op), r.t, d}
		d.visible().write(r.t, k.Dir)
		look(k)
		_ = os.RemoveAll(k.Dir) // the test's end does, too
	}
}

// write puts the files into dir.
func (s state) write(t testing.TB, dir string) {
	t.Helper()
	for _, rel := range slices.Sorted(maps.Keys(s)) {
		f, path := s[rel], filepath.Join(dir, filepath.FromSlash(rel))
		var err error
		if f.dir {
			err = os.Mkdir(path, f.perm)
		} else {
			err = os.WriteFile(path, f.data, f.perm)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (s state) sum(acknowledged int) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintln(h, acknowledged)
	for _, path := range slices.Sorted(maps.Keys(s)) {
		f := s[path]
		fmt.Fprintf(h, "%q %v %v %d\n", path, f.perm, f.dir, len(f.data))
		_, _ = h.Write(f.data) // a hash takes all
	}
	return [sha256.Size]byte(h.Sum(nil))
}
