// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
)

// TestItsOwnClaimIsNoOtherAttempt: the bus tells late of what an attempt wrote on its
// way to the generation that it made.
func TestItsOwnClaimIsNoOtherAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		inner := f.log
		late := &lateBus{Log: inner, scope: event.StateScope, late: afterFailure / 3}
		f.log = late
		defer run(t, f.manager(t, ""))()
		time.Sleep(time.Minute)
		late.take("")
		if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := late.take("append " + event.StateKey(c.ID)); n != 2 || at(t, m, c.ID).Generation != 2 {
			t.Errorf("%d appends, want a claim and a commit", n)
		}
	})
}

// TestABusThatNeverTellsOfACommit keeps its certificate from being renewed for a few
// seconds, and no other.
func TestABusThatNeverTellsOfACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		s := newScheduler(t.Context(), f.manager(t, ""))
		s.known[c.ID] = c
		written := *c
		written.Position.Seq++
		begun := time.Now()
		s.mu.Lock()
		s.followLocked(&written)
		if took := time.Since(begun); took != afterFailure || len(s.awaited) != 0 {
			t.Errorf("waited for %v, and for %d more", took, len(s.awaited))
		}
		s.mu.Unlock()
	})
}

// TestACopyGoesOverWhatWasSeen, and not over what came meanwhile.
func TestACopyGoesOverWhatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		kept, removed := make1(t, m, "a.example"), make1(t, m, "b.example")
		inner := f.log
		late := &lateBus{Log: &beforeAppend{Log: inner, key: event.CertificateKey(DefaultGroup, removed.ID), do: func() {
			if err := m.Remove(t.Context(), removed.ID); err != nil {
				t.Error(err)
			}
		}}}
		f.log = late
		runner := f.manager(t, "")
		defer run(t, runner)()
		f.log = inner
		synctest.Wait()
		late.take("")
		for _, c := range []*Managed{kept, removed} {
			if _, err := runner.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
				t.Fatal(err)
			}
			if n := late.take("get group/"); (n > 0) != (c == removed) {
				t.Errorf("what stands for replicas was asked for %d times", n)
			}
		}
		if v := f.copyOf(t, kept.ID).(*event.Certificate).Version; v.Generation != 2 {
			t.Errorf("version %s is copied", v)
		}
		if _, ok := f.copyOf(t, removed.ID).(*event.Removal); !ok {
			t.Error("the removal was overwritten")
		}
	})
}
