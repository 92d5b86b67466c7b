// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
)

// results are those of a pass by id.
func results(t *testing.T, list []DueResult, err error) map[string]DueResult {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[string]DueResult)
	for _, r := range list {
		byID[r.ID] = r
	}
	if len(byID) != len(list) {
		t.Errorf("%d results for %d certificates", len(list), len(byID))
	}
	return byID
}

func TestRenewDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		due, marked, fresh := make1(t, m, "a.example"), make1(t, m, "b.example"), (*Managed)(nil)
		time.Sleep(61 * 24 * time.Hour)
		fresh = make1(t, m, "c.example")
		claimed := make1(t, m, "d.example")
		for _, c := range []*Managed{marked, claimed} {
			if err := m.Mark(t.Context(), c.ID, event.ReasonGroupKey); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.manager(t, "").claim(t.Context(), at(t, m, claimed.ID), event.ReasonRenewal, false); err != nil {
			t.Fatal(err)
		}
		var order []string
		pass := func(o DueOptions) map[string]DueResult {
			list, err := f.manager(t, "").RenewDue(t.Context(), o)
			return results(t, list, err)
		}
		got := pass(DueOptions{Max: 1, Progress: func(r DueResult) { order = append(order, r.ID) }})
		if len(got) != 3 || got[marked.ID].Err != nil || got[marked.ID].Generation != 2 ||
			!errors.Is(got[due.ID].Err, ErrLeft) || !errors.Is(got[claimed.ID].Err, ErrClaimed) || len(order) != 3 {
			t.Fatalf("%+v", got)
		}
		got = pass(DueOptions{})
		if len(got) != 2 || got[due.ID].Err != nil || got[due.ID].Generation != 2 {
			t.Fatalf("%+v", got)
		}
		if c := at(t, m, due.ID); f.copyOf(t, due.ID).(*event.Certificate).Version != c.Version || c.lastReason() != event.ReasonRenewal {
			t.Errorf("%+v", c.State)
		}
		if c := at(t, m, fresh.ID); c.Generation != 1 {
			t.Error("what was not due was renewed")
		}
		// A pass never sees a claim lapse, but knows one that is much too old.
		time.Sleep(deadClaim)
		if got = pass(DueOptions{}); len(got) != 1 || got[claimed.ID].Err != nil || got[claimed.ID].Generation != 2 {
			t.Fatalf("%+v", got)
		}
		if got = pass(DueOptions{}); len(got) != 0 {
			t.Fatalf("%+v", got)
		}
	})
}

// TestRenewDueGoesOnAfterFailures, and tries nothing twice.
func TestRenewDueGoesOnAfterFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		var ids []string
		for n := range 3 * perIssuer {
			c := make1(t, m, fmt.Sprintf("h%d.example", n))
			ids = append(ids, c.ID)
			if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
				t.Fatal(err)
			}
		}
		timer, i := f.manager(t, ""), new(faultyIssuer)
		wrap(t, timer, i)
		var tries, at1, most atomic.Int32
		i.set(func(context.Context) error {
			if n := at1.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer at1.Add(-1)
			time.Sleep(time.Second)
			if tries.Add(1)%2 == 0 {
				return errors.New("CA is down")
			}
			return nil
		})
		list, err := timer.RenewDue(t.Context(), DueOptions{})
		got := results(t, list, err)
		failed := 0
		for _, id := range ids {
			c := at(t, m, id)
			if r := got[id]; (r.Err != nil) != (c.Failure != nil) || r.Generation != c.Generation {
				t.Errorf("%+v, and the state says %+v", r, c.State)
			}
			if c.Failure != nil {
				failed++
			}
		}
		if len(got) != len(ids) || failed != len(ids)/2 || int(tries.Load()) != len(ids) || most.Load() != perIssuer {
			t.Errorf("%d results, %d failed, %d attempts, %d at once", len(got), failed, tries.Load(), most.Load())
		}
	})
}

func TestRenewDueEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		for n := range 3 * perIssuer {
			c := make1(t, m, fmt.Sprintf("h%d.example", n))
			if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
				t.Fatal(err)
			}
		}
		timer := f.manager(t, "")
		wrap(t, timer, &faultyIssuer{before: func(context.Context) error { time.Sleep(time.Minute); return nil }})
		start := time.Now()
		list, err := timer.RenewDue(t.Context(), DueOptions{For: 90 * time.Second})
		renewed, left := 0, 0
		for _, r := range results(t, list, err) {
			switch {
			case r.Err == nil:
				renewed++
			case errors.Is(r.Err, ErrLeft):
				left++
			default:
				t.Error(r.Err)
			}
		}
		if took := time.Since(start); renewed != 2*perIssuer || left != perIssuer || took != 2*time.Minute {
			t.Errorf("%d renewed, %d left, in %v", renewed, left, took)
		}
	})
}

// TestRenewDueMakesUpForCopies of a renewal and of a removal.
func TestRenewDueMakesUpForCopies(t *testing.T) {
	f, m := newFleet(t)
	renewed, removed := make1(t, m, "a.example"), make1(t, m, "b.example")
	inner := f.log
	f.log = noCopies{inner}
	crashed := f.manager(t, "")
	_, _ = crashed.Renew(t.Context(), renewed.ID, event.ReasonRekey) // fails, as wanted
	_ = crashed.Remove(t.Context(), removed.ID)
	f.log = inner
	if list, err := m.RenewDue(t.Context(), DueOptions{}); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
	if v := f.copyOf(t, renewed.ID).(*event.Certificate).Version; v.Generation != 2 {
		t.Error("the renewal was not copied")
	}
	if _, ok := f.copyOf(t, removed.ID).(*event.Removal); !ok {
		t.Error("the removal was not copied")
	}
	if m.Stats().LastPass.IsZero() {
		t.Error("the pass is not noted")
	}
}

// TestTimersAtOnce: of several that look at the same time, one renews each.
func TestTimersAtOnce(t *testing.T) {
	f, m := newFleet(t)
	var ids []string
	for n := range 20 {
		c := make1(t, m, fmt.Sprintf("h%d.example", n))
		ids = append(ids, c.ID)
		if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 4 {
		timer := f.manager(t, "")
		wg.Go(func() {
			list, err := timer.RenewDue(t.Context(), DueOptions{})
			if err != nil {
				t.Error(err)
			}
			for _, r := range list {
				if r.Err != nil && !errors.Is(r.Err, ErrClaimed) {
					t.Error(r.Err)
				}
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if c := at(t, m, id); c.Generation != 2 {
			t.Errorf("%d generations", c.Generation)
		}
	}
}
