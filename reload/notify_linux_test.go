// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"crypto/x509"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

func TestFollow(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	path := func(name string) string { return filepath.Join(root, name) }
	write(t, path("data/1/tls.crt"), nil)
	must(t, os.Symlink("1", path("data/current")))
	must(t, os.Symlink(path("data/current"), path("live")))
	must(t, os.Symlink("../live/./tls.crt", path("data/web.crt")))
	must(t, os.Symlink("loop", path("loop")))
	for name, want := range map[string]string{
		"data/web.crt":     "/:data, /data/1:tls.crt, /data:1, /data:current, /data:web.crt, /:live",
		"live/tls.crt":     "/:data, /data/1:tls.crt, /data:1, /data:current, /:live",
		"live":             "/:data, /data/1:, /data:1, /data:current, /:live",
		"none/at/all":      "/:none, /none/at:all, /none:at",
		"loop/x":           "/:loop",
		"data/../data/web": "/:data, /data:web",
	} {
		places := make(map[string]namesOf)
		follow(places, root+"/"+name)
		var got []string
		for dir, names := range places {
			for name := range names {
				if rest, ok := strings.CutPrefix(dir, root); ok {
					got = append(got, "/"+strings.TrimPrefix(rest, "/")+":"+name)
				}
			}
		}
		wanted := strings.Split(want, ", ")
		slices.Sort(got)
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) {
			t.Errorf("%s: got %q, want %q", name, got, wanted)
		}
		if !places["/"][strings.Split(root, "/")[1]] {
			t.Errorf("%s: / is not among %q", name, slices.Collect(maps.Keys(places)))
		}
	}
}

// What others do in the same directory makes no work.
func TestOnlyOwnFilesAreNoticed(t *testing.T) {
	dir := t.TempDir()
	changes := make(chan struct{}, 1)
	made, err := newNotifier(changes)
	must(t, err)
	defer made.close()
	n := made.(*inotify)
	file := filepath.Join(dir, "web.pem")
	write(t, file, nil)
	if added, err := n.watch([]string{file}); err != nil || !added {
		t.Fatalf("%t, %v", added, err)
	}
	if added, err := n.watch([]string{file}); err != nil || added {
		t.Fatalf("%t, %v, want nothing new", added, err)
	}
	// The kernel tells in order: what concerns nobody was seen by then.
	write(t, filepath.Join(dir, "other"), []byte("x"))
	event := func(name string) bool {
		watched := int32(-1)
		for wd, names := range n.names {
			if names["web.pem"] {
				watched = wd
			}
		}
		raw := make([]byte, 16+16)
		raw[0], raw[4], raw[12] = byte(watched), 8, 16
		copy(raw[16:], name)
		return n.concerns(raw)
	}
	if event("other") || !event("web.pem") || !event("") {
		t.Error("judged wrongly")
	}
	if n.concerns([]byte("cut")) || n.concerns(make([]byte, 16)) {
		t.Error("what is no event of a watch is noticed")
	}
	if overflow := []byte{255, 255, 255, 255, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}; !n.concerns(overflow) {
		t.Error("an overflow is not noticed")
	}
	write(t, file, []byte("x"))
	receive(t, changes)

	// A directory that is replaced is watched anew; one no longer wanted is not.
	must(t, os.Rename(dir, dir+".old"))
	receive(t, changes)
	write(t, file, nil)
	if added, err := n.watch([]string{file}); err != nil || !added {
		t.Errorf("%t, %v, want the new directory", added, err)
	}
	must(t, os.RemoveAll(dir+".old"))
	if _, err := n.watch(nil); err != nil || len(n.names) != 0 {
		t.Errorf("%v, %d watches", err, len(n.names))
	}
}

// By directories alone: all that a Directory and CAs have to notice.
func TestNoticed(t *testing.T) {
	f := &folder{t, filepath.Join(t.TempDir(), "certs"), newCA(t, "ca", nil)}
	web := f.put("web.crt", "web.key")
	cas := filepath.Join(t.TempDir(), "ca")
	write(t, filepath.Join(cas, "a.pem"), certPEM(f.ca.cert))

	var store keyturn.Store
	events := make(chan keyturn.Event, 100)
	pools := make(chan *x509.CertPool, 10)
	journal := newJournal()
	w, err := Watch(Options{Interval: -1, Logger: journal.logger()},
		Directory(&store, f.dir), CAs(cas, func(p *x509.CertPool) { pools <- p }))
	must(t, err)
	defer w.Close()
	receive(t, pools)
	defer store.Observe(events)()
	serve(t, &store, "web", web)

	swapped := func(id string, want int64) {
		t.Helper()
		if e := receive(t, events); e.ID != id {
			t.Errorf("%v was swapped, want %s", e, id)
		}
		serve(t, &store, id, want)
	}
	swapped("web", f.put("web.crt", "web.key"))
	swapped("web", f.put("web.crt", "web.key")) // a second time, too
	swapped("more", f.put("more.pem", ""))
	// In a folder that is found empty. What is bad after it tells that it was looked at.
	must(t, os.Mkdir(f.path("new"), 0o700))
	f.put("bad.crt", "none")
	journal.wait(t, `pair \"bad\"`)
	swapped("new", f.put("new/tls.crt", "new/tls.key"))
	must(t, os.Remove(f.path("bad.crt")))
	swapped("new", f.put("new/tls.crt", "new/tls.key"))
	must(t, os.RemoveAll(f.path("new")))
	journal.wait(t, `pair \"new\"`)
	swapped("new", f.put("new/tls.crt", "new/tls.key"))

	write(t, filepath.Join(cas, "b.pem"), certPEM(newCA(t, "b", nil).cert))
	receive(t, pools)
	must(t, os.Remove(filepath.Join(cas, "a.pem")))
	receive(t, pools)
}

// Where directories cannot be watched, polling stands in, and that is said once.
func TestWithoutNotification(t *testing.T) {
	for name, newNotifier := range map[string]func(chan<- struct{}) (notifier, error){
		"no more instances": func(chan<- struct{}) (notifier, error) { return nil, syscall.EMFILE },
		"no more watches": func(changes chan<- struct{}) (notifier, error) {
			made, err := newNotifier(changes)
			must(t, made.(*inotify).file.Close())
			return made, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "web.pem")
			ca := newCA(t, "ca", nil)
			put := func() int64 {
				serial, chain, key := ca.leaf(t)
				write(t, file, append(chain, key...))
				return serial
			}
			put()
			var store keyturn.Store
			journal := newJournal()
			w, err := watch(Options{Interval: time.Millisecond, Logger: journal.logger()}, newNotifier, []Source{PEM(&store, "web", file)})
			must(t, err)
			defer w.Close()
			events := make(chan keyturn.Event, 10)
			defer store.Observe(events)()
			for range 3 {
				want := put()
				receive(t, events)
				serve(t, &store, "web", want)
			}
			must(t, w.Close())
			w.cannotNotify(errors.New("watching another directory"))
			if lines := strings.Join(journal.drain(), ""); strings.Count(lines, "cannot be watched") != 1 {
				t.Errorf("logged %s, want one line of that", lines)
			}
		})
	}
}
