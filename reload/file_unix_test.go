// SPDX-License-Identifier: Apache-2.0

//go:build unix

package reload

import (
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn"
)

// Neither opening a FIFO may wait for its writer, nor may a device be opened.
func TestSpecialFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.pem")
	serial, chain, key := newCA(t, "ca", nil).leaf(t)
	write(t, file, append(chain, key...))
	var store keyturn.Store
	w := called(t, Options{}, PEM(&store, "web", file))

	must(t, os.Remove(file))
	must(t, syscall.Mkfifo(file, 0o600))
	refuses(t, w.Reload(), "no regular file", "prw")
	must(t, os.Remove(file))
	must(t, os.Symlink("/dev/zero", file))
	refuses(t, w.Reload(), "no regular file", "Dcrw")
	serve(t, &store, "web", serial)
}

func TestSIGHUP(t *testing.T) {
	ca := newCA(t, "ca", nil)
	// Two Watchers hear of it; after Close of one, the other does.
	type watched struct {
		store  keyturn.Store
		file   string
		events chan keyturn.Event
		w      *Watcher
	}
	var both [2]watched
	put := func(x *watched) int64 {
		serial, chain, key := ca.leaf(t)
		write(t, x.file, append(chain, key...))
		return serial
	}
	for i := range both {
		x := &both[i]
		x.file = filepath.Join(t.TempDir(), "web.pem")
		put(x)
		x.w = called(t, Options{SIGHUP: true}, PEM(&x.store, "web", x.file))
		x.events = make(chan keyturn.Event, 10)
		defer x.store.Observe(x.events)()
	}
	for i := range both {
		var want [2]int64
		for j := range both {
			want[j] = put(&both[j])
		}
		must(t, syscall.Kill(syscall.Getpid(), syscall.SIGHUP))
		for j := i; j < len(both); j++ {
			receive(t, both[j].events)
			serve(t, &both[j].store, "web", want[j])
		}
		must(t, both[i].w.Close())
		if i == 1 && len(both[0].events) != 0 {
			t.Error("a Watcher that is closed has swapped")
		}
	}
	// A signal is with all who want it before the next is with any.
	own := make(chan os.Signal, 1)
	signal.Notify(own, syscall.SIGHUP)
	defer signal.Stop(own)
	for range 2 {
		must(t, syscall.Kill(syscall.Getpid(), syscall.SIGHUP))
		receive(t, own)
	}
	for i := range both {
		if len(both[i].w.signals) != 0 {
			t.Error("a Watcher that is closed still gets signals")
		}
	}
}
