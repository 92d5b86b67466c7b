// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// catchUp has the replica hear that it has taken all there is.
func (f *fixture) catchUp() {
	f.take(update{Update: bus.Update{Entry: bus.Entry{Position: f.position}, CaughtUp: true}})
}

// TestProofIsRemembered restarts a replica that holds what came during catch-up: before
// that is proven, when it is, and when the snapshot was compacted since.
func TestProofIsRemembered(t *testing.T) {
	f, ca := newFixture(t), newCA(t)
	f.status.Following = false
	restart := func() {
		t.Helper()
		_ = f.Close()
		f.Replica = f.open(t, f.dir, *f.managers.Load(), f.Replica.keys)
	}
	want := func(when string, proven bool) {
		t.Helper()
		one := f.Served()[0]
		if info, ok := f.store.Info(fixtureID); !ok || info.Open {
			t.Errorf("%s: the store has %+v", when, info)
		}
		if proven != !one.Served.IsZero() || proven == (len(f.unproven) > 0) {
			t.Errorf("%s: served since %v, and %d are to be proven", when, one.Served, len(f.unproven))
		}
	}
	f.publish(t, ca)
	want("taken", false)
	f.catchUp()
	want("caught up", false)
	restart()
	want("after a restart", false)
	if err := f.snapshot.compact("", nil); err != nil {
		t.Fatal(err)
	}
	restart()
	want("compacted, after a restart", false)
	for f.proveNext() {
	}
	want("proven", true)
	restart()
	want("proven, after a restart", true)
	if err := f.snapshot.compact("", nil); err != nil {
		t.Fatal(err)
	}
	restart()
	want("proven and compacted, after a restart", true)
	_ = f.Close()
	if g := f.reopen(t, f.dir); g != 1 {
		t.Error("generation", g)
	}
}

// TestOthersProof has the proof of one stand in the file when another comes sealed.
func TestOthersProof(t *testing.T) {
	f, ca := newFixture(t), newCA(t)
	f.status.Following = false
	f.publish(t, ca)
	sealed := f.snapshot.journal.number
	if err := f.snapshot.mark(recordProven); err != nil {
		t.Fatal(err)
	}
	h := f.held[fixtureID]
	if err := f.snapshot.add(fixtureID, h, true); err != nil {
		t.Fatal(err)
	}
	if sealed == 0 || h.proven {
		t.Fatal("it was not sealed")
	}
	_ = f.Close()
	f.Replica = f.open(t, f.dir, *f.managers.Load(), f.Replica.keys)
	if f.held[fixtureID].proven {
		t.Error("what came after the proof counts as proven")
	}
}

// TestProofAfterTheEnd has a certificate end before it is proven: it is served on.
func TestProofAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, ca := newFixture(t), newCA(t)
		f.status.Following = false
		f.publish(t, ca)
		f.catchUp()
		time.Sleep(2 * time.Hour)
		for f.proveNext() {
		}
		if s := f.Status(); s.Certificates != 1 || len(s.Refused) != 0 || f.Served()[0].Served.IsZero() {
			t.Errorf("%+v", s)
		}
		if _, ok := f.store.Get(fixtureID); !ok {
			t.Error("it is not served")
		}
	})
}
