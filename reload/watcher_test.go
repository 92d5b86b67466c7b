// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn"
)

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

// A panic of the caller's is the caller's, and leaves nothing behind: see TestMain.
func TestPanicOfTheCaller(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	write(t, file, bundle(newCA(t, "ca", nil)))
	defer func() {
		if recover() != "set" {
			t.Error("it does not get to the caller")
		}
	}()
	_, _ = Watch(Options{SIGHUP: true, Logger: slog.New(slog.DiscardHandler)}, CAs(file, func(*x509.CertPool) { panic("set") }))
}

// A certificate that comes before its time, or before this machine's clock is right, is
// one fault, and is taken when it is valid, with no change of the files.
func TestNotYetValid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "web.pem")
		ca := newCA(t, "ca", nil, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(24 * time.Hour) })
		first, chain, key := ca.leaf(t)
		write(t, file, append(chain, key...))
		var store keyturn.Store
		journal := newJournal()
		w, err := watch(Options{Logger: journal.logger()}, noNotifier, []Source{PEM(&store, "web", file)})
		must(t, err)
		defer w.Close()
		second, chain, key := ca.leaf(t, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
		})
		write(t, file, append(chain, key...))
		time.Sleep(time.Hour - time.Second)
		serve(t, &store, "web", first)
		time.Sleep(DefaultInterval + time.Second)
		serve(t, &store, "web", second)
		if lines := strings.Join(journal.drain(), ""); strings.Count(lines, "ERROR") != 1 || strings.Count(lines, "good again") != 1 {
			t.Errorf("logged %s, want one fault and its end", lines)
		}
	})
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
