// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

// A fullNotifier is what newNotifier gives where the kernel has no more watches.
type fullNotifier struct{ closed bool }

func (*fullNotifier) watch([]string) (bool, error) { return false, syscall.ENOSPC }
func (n *fullNotifier) close()                     { n.closed = true }

// Where directories cannot be watched, polling stands in, and that is said once.
func TestWithoutNotification(t *testing.T) {
	full := &fullNotifier{}
	for name, newNotifier := range map[string]func(chan<- struct{}) (notifier, error){
		"no more instances": func(chan<- struct{}) (notifier, error) { return nil, syscall.EMFILE },
		"no more watches":   func(chan<- struct{}) (notifier, error) { return full, nil },
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
			if lines := strings.Join(journal.drain(), ""); strings.Count(lines, "cannot be watched") != 1 {
				t.Errorf("logged %s, want one line of that", lines)
			}
		})
	}
	if !full.closed {
		t.Error("the notifier was not closed")
	}
}

// All at once, for the race detector; after Close nothing is put.
func TestAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, "ca", nil)
	put := func(i int) {
		_, chain, key := ca.leaf(t)
		write(t, filepath.Join(dir, fmt.Sprintf("%d.crt", i)), chain)
		write(t, filepath.Join(dir, fmt.Sprintf("%d.key", i)), key)
	}
	for i := range 4 {
		put(i)
	}
	var store keyturn.Store
	w, err := Watch(Options{Interval: time.Millisecond, Logger: slog.New(slog.DiscardHandler)}, Directory(&store, dir))
	must(t, err)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 5 {
				put(i)
				if err := w.Reload(); err != nil && !errors.Is(err, errClosed) && !strings.Contains(err.Error(), "reload: pair") {
					t.Error(err)
				}
			}
			must(t, w.Close())
		})
	}
	all.Wait()
	events := make(chan keyturn.Event, 10)
	defer store.Observe(events)()
	put(0)
	if err := w.Reload(); !errors.Is(err, errClosed) || len(events) != 0 {
		t.Errorf("after Close: %v, %d events", err, len(events))
	}
}

// What is remembered is bounded, however files are bad.
func TestOnce(t *testing.T) {
	var o once
	said := 0
	for i := range 3 * maxOnce {
		for range 2 {
			if o.first(fmt.Sprint(i)) {
				said++
			}
		}
	}
	if said != 3*maxOnce || len(o.said) > maxOnce {
		t.Errorf("said %d of %d, remembers %d", said, 3*maxOnce, len(o.said))
	}
}
