// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// TestARestartVerifiesAndOpensNothing restarts a replica on a snapshot in which no
// signature is good and no key opens, though the snapshot says that all of it was
// verified and is proven. With the bus at the same place it is all held, so nothing was
// verified or opened again, whatever the number; what comes anew is refused, and what is
// asked for is not served.
func TestARestartVerifiesAndOpensNothing(t *testing.T) {
	stranger, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 100, 3000} {
		f, ca := newFixture(t), newCA(t)
		body, err := event.Trusted(DefaultTenant, f.next(t, ca).Data)
		if err != nil {
			t.Fatal(err)
		}
		c := *body.Body.(*event.Certificate)
		c.SealedKey = bytes.Clone(c.SealedKey)
		c.SealedKey[len(c.SealedKey)-1] ^= 1
		forge := func() bus.Entry {
			t.Helper()
			data, err := event.Sign(stranger, DefaultTenant, time.Now(), &c)
			if err != nil {
				t.Fatal(err)
			}
			return bus.Entry{Key: event.CertificateKey(DefaultGroup, c.ID), Data: data}
		}

		log := membus.New()
		at, err := log.Append(t.Context(), event.CertificateKey(DefaultGroup, fixtureID), bus.Position{}, []byte("a place to be at"))
		if err != nil {
			t.Fatal(err)
		}
		f.status.Following = false
		var last bus.Entry
		for range n {
			c.ID = event.NewID()
			last = forge()
			e, err := event.Trusted(DefaultTenant, last.Data)
			if err != nil {
				t.Fatal(err)
			}
			last.Position = at
			f.take(update{Update: bus.Update{Entry: last}, opened: &opened{event: e, by: f.managers.Load()}})
		}
		f.catchUp()
		if err := f.snapshot.mark(recordProven); err != nil {
			t.Fatal(err)
		}
		managers, keys := *f.managers.Load(), f.Replica.keys
		_ = f.Close()

		r, err := Open(t.Context(), Config{Managers: managers, Keys: keys, Log: log, Snapshot: f.dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		<-r.CaughtUp()
		if s := r.Status(); s.Certificates != n || s.Applied != 0 || len(s.Refused) != 0 || r.Store().Len() != n {
			t.Errorf("of %d: %+v", n, s)
		}
		for id, info := range r.Store().All() {
			if info.Open {
				t.Errorf("of %d, %s is open", n, id)
			}
		}
		if slices.ContainsFunc(r.Served(), func(one event.Received) bool { return one.Served.IsZero() }) {
			t.Errorf("of %d, some are not said to be served", n)
		}

		c.Generation++
		news := forge()
		if _, err := log.Append(t.Context(), news.Key, bus.Position{}, news.Data); err != nil {
			t.Fatal(err)
		}
		for r.Status().Refused[RefusedSigner] == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		if _, ok := r.Store().Get(c.ID); ok {
			t.Error("a key that does not open is served")
		}
	}
}

// TestWhatCannotBeReadAnyMore has the disk lose an event that is held. It is left out of
// the next file, and held again as soon as the bus brings it.
func TestWhatCannotBeReadAnyMore(t *testing.T) {
	f, ca := newFixture(t), newCA(t)
	e := f.next(t, ca)
	f.take(update{Update: bus.Update{Entry: e}})
	path := f.newestFile(t)
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(make([]byte, 512), info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.snapshot.compact("", nil); err != nil {
		t.Fatal(err)
	}
	if g := f.Version(fixtureID); g.Generation != 1 {
		t.Error("what is served is not held any more")
	}
	f.take(update{Update: bus.Update{Entry: e}})
	if s := f.Status(); len(s.Refused) != 0 || s.SnapshotErrors != 0 {
		t.Errorf("%+v", s)
	}
	_ = f.Close()
	if g := f.reopen(t, f.dir); g != 1 {
		t.Error("generation", g)
	}
}
