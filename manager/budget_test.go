// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
)

const day = 24 * time.Hour

// otherIssuer adds a second issuer to the shared configuration.
func otherIssuer(t *testing.T, m *Manager) {
	t.Helper()
	_, pos, err := m.ConfigText(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := "default_issuer: internal\n" + sharedConfig + "  other:\n    type: local\n    lifetime: 90d\n"
	if _, err := m.UpdateConfig(t.Context(), []byte(text), pos); err != nil {
		t.Fatal(err)
	}
}

// limit gives the built-in CA limits, which no configuration does.
func limit(t *testing.T, m *Manager, issuer string, l config.Limits) {
	t.Helper()
	set, err := m.settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	limited := *set
	limited.limits = map[string]config.Limits{issuer: l}
	m.set.Store(&limited)
}

func budgeted(t *testing.T, err error) *HeldError {
	t.Helper()
	var h *HeldError
	if err != nil && !errors.As(err, &h) {
		t.Fatal(err)
	}
	return h
}

// TestManagersShareABudget: several at once are given what the limit allows, less
// the reserve, and not one more.
func TestManagersShareABudget(t *testing.T) {
	f, _ := newFleet(t)
	var made, waits atomic.Int32
	var all sync.WaitGroup
	for one := range 4 {
		m := f.manager(t, "")
		limit(t, m, "internal", config.Limits{Orders: config.Rate{Count: 10, Per: 1000 * time.Hour}})
		for n := range 5 {
			all.Go(func() {
				_, err := m.Make(context.Background(), Request{Names: []string{fmt.Sprintf("h%d-%d.example", one, n)}})
				var h *HeldError
				switch {
				case err == nil:
					made.Add(1)
				case errors.As(err, &h):
					waits.Add(1)
				default:
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if made.Load() != 9 || waits.Load() != 11 {
		t.Errorf("%d were made, %d have to wait", made.Load(), waits.Load())
	}
	m := f.manager(t, "")
	limit(t, m, "internal", config.Limits{Orders: config.Rate{Count: 10, Per: 1000 * time.Hour}})
	list, err := m.Limits(t.Context(), "internal")
	if err != nil || len(list) != 1 || list[0].What != LimitOrders || list[0].Left != 0 || list[0].Reserve != 1 || list[0].Full.IsZero() {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestLimitsOfNames: of the domain, the address and the set, in one order.
func TestLimitsOfNames(t *testing.T) {
	week := 7 * day
	limits := config.Limits{Domain: config.Rate{Count: 3, Per: week}, Set: config.Rate{Count: 2, Per: week}}
	synctest.Test(t, func(t *testing.T) {
		_, m := newFleet(t)
		limit(t, m, "internal", limits)
		a := make1(t, m, "a.one.co.uk")
		_, err := m.Renew(t.Context(), a.ID, event.ReasonRekey)
		if h := budgeted(t, err); h == nil || h.Account || !strings.Contains(h.Error(), "exactly these names") || time.Until(h.Until) != week/2 {
			t.Errorf("%v", err)
		}
		make1(t, m, "b.one.co.uk")
		_, err = m.Make(t.Context(), Request{Names: []string{"c.one.co.uk"}})
		if h := budgeted(t, err); h == nil || !strings.Contains(h.Reason, "one.co.uk") {
			t.Errorf("%v", err)
		}
		make1(t, m, "two.co.uk") // a domain of its own
		list, err := m.Limits(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range list {
			if l.What == LimitDomain && l.Of == "one.co.uk" && l.Left != 0 || l.What == LimitDomain && l.Of == "two.co.uk" && l.Left != 1 {
				t.Errorf("%+v", l)
			}
		}
		time.Sleep(week/2 + time.Second)
		if _, err := m.Renew(t.Context(), a.ID, event.ReasonRekey); err != nil {
			t.Error(err)
		}
	})
}

func TestRegistered(t *testing.T) {
	got := registered([]string{"*.a.example.com", "b.example.com", "x.github.io", "192.0.2.1", "2001:db8::1", "2001:db8::2", "com"})
	want := []string{"192.0.2.1", "2001:db8::/64", "com", "example.com", "x.github.io"}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestTheScheduleDrawsEvenly leaves what somebody needs who waits.
func TestTheScheduleDrawsEvenly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		var ids []string
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			c := make1(t, m, name+".example")
			ids = append(ids, c.ID)
		}
		runner := f.manager(t, "")
		limits := config.Limits{Orders: config.Rate{Count: 10, Per: 9 * time.Hour}}
		limit(t, runner, "internal", limits)
		limit(t, m, "internal", limits)
		var mu sync.Mutex
		var orders []time.Time
		i := new(faultyIssuer)
		wrap(t, runner, i)
		i.set(func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			orders = append(orders, time.Now())
			return nil
		})
		if _, err := m.MarkIssuer(t.Context(), "internal", event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		stop := run(t, runner)
		defer stop()
		time.Sleep(90 * time.Minute)
		if q := runner.Stats().Queues; len(q) != 1 || q[0].Issuer != "internal" || q[0].Waiting != 4 || q[0].Until.IsZero() || q[0].Paused {
			t.Errorf("%+v", q)
		}
		for _, id := range ids {
			if c := at(t, m, id); c.Mark != nil {
				if e := m.NewExplainer(t.Context()).Explain(c); e.Cause != CauseMark || !e.Due || e.Issuer != "internal" {
					t.Errorf("%+v", e)
				}
			}
		}
		for range 5 {
			if _, err := m.Renew(t.Context(), ids[0], event.ReasonRekey); err != nil {
				t.Fatal(err)
			}
		}
		var last [3]int
		if err := m.WatchMarked(t.Context(), ids, func(done, failed, of int) { last = [3]int{done, failed, of} }); err != nil || last != [3]int{6, 0, 6} {
			t.Error(err, last)
		}
		for n := 1; n < len(orders); n++ {
			if d := orders[n].Sub(orders[n-1]); d < 54*time.Minute/9*10 {
				t.Errorf("order %d came %v after the one before", n, d)
			}
		}
		for _, id := range ids {
			if c := at(t, m, id); c.Hold != nil || c.Failure != nil || c.Generation < 2 {
				t.Errorf("%+v", c.State)
			}
		}
	})
}

// TestAHoldIsWrittenOnce, is no failure, and ends with the next generation.
func TestAHoldIsWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		limits := config.Limits{Set: config.Rate{Count: 1, Per: 3 * day}}
		limit(t, m, "internal", limits)
		c := make1(t, m, "a.example")
		time.Sleep(day)
		counter := &appends{Log: f.log, n: make(map[string]int)}
		f.log = counter
		runner := f.manager(t, "")
		limit(t, runner, "internal", limits)
		if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		stop := run(t, runner)
		defer stop()
		time.Sleep(40 * time.Hour)
		got := at(t, m, c.ID)
		if got.Hold == nil || got.Failure != nil || got.Generation != 1 || got.Claim != nil || counter.count(event.StateKey(c.ID)) != 1 {
			t.Fatalf("%+v, written %d times", got.State, counter.count(event.StateKey(c.ID)))
		}
		if e := m.NewExplainer(t.Context()).Explain(got); e.Cause != CauseHold || e.Due || !e.At.Equal(got.Hold.Until) || !strings.Contains(e.Why, "exactly these names") || !strings.HasSuffix(e.Why, ", until "+stamp(got.Hold.Until)) {
			t.Errorf("%+v", e)
		}
		time.Sleep(9 * time.Hour)
		if got := at(t, m, c.ID); got.Hold != nil || got.Generation != 2 {
			t.Errorf("%+v", got.State)
		}
	})
}

// TestABudgetEndsNoCertificate: with little left, the reserve is drawn, and with
// next to nothing left, the CA is asked whatever the budget says.
func TestABudgetEndsNoCertificate(t *testing.T) {
	now := time.Now()
	cert := func(left time.Duration) *Managed {
		v := event.Version{Epoch: 1, Generation: 1}
		return &Managed{
			State:       event.State{ID: event.NewID(), Version: v, Spec: event.Spec{Issuer: "ca", Names: []string{"a.example"}}},
			Certificate: &event.Certificate{Version: v, NotBefore: now.Add(left - 90*day), NotAfter: now.Add(left)}, Issued: now.Add(left - 90*day),
		}
	}
	for left, want := range map[time.Duration]need{30 * day: routine, 6 * day: endangered, 3 * day: lost, -day: lost} {
		if got := cert(left).needs("ca", true, now); got != want {
			t.Errorf("%v left: %d, want %d", left, got, want)
		}
	}
	_, m := newFleet(t)
	set := &settings{after: 3, limits: map[string]config.Limits{"ca": {Set: config.Rate{Count: 2, Per: 1000 * day}}}}
	for n, want := range map[need][]bool{wanted: {true, false}, pressing: {true, true, false}, endangered: {true, true, false}, lost: {true, true, true, true}} {
		c := cert(30 * day)
		c.Spec.Names = []string{c.ID + ".example"}
		for i, ok := range want {
			if h := budgeted(t, m.ledger.draw(t.Context(), set, c, "ca", n)); (h == nil) != ok {
				t.Errorf("need %d, order %d: %v", n, i, h)
			}
		}
	}
}

// TestFailedValidationsAreCounted, and keep the name from being tried again.
func TestFailedValidationsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := newFleet(t)
		limit(t, m, "internal", config.Limits{Failures: config.Rate{Count: 5, Per: time.Hour}})
		c := &Managed{State: event.State{Failure: &event.Failure{Problem: &event.Problem{
			Type: "urn:ietf:params:acme:error:compound",
			Parts: []event.Problem{
				{Type: "urn:ietf:params:acme:error:dns", Name: "a.example"},
				{Type: "urn:ietf:params:acme:error:rateLimited", Name: "b.example"},
			},
		}}}}
		if got := c.unproven(); !slices.Equal(got, []string{"a.example"}) {
			t.Fatal(got)
		}
		for range 4 {
			m.drawFailures(t.Context(), "internal", c.unproven())
		}
		_, err := m.Make(t.Context(), Request{Names: []string{"a.example", "b.example"}})
		if h := budgeted(t, err); h == nil || !strings.Contains(h.Reason, "a.example failed too often") {
			t.Error(err)
		}
		time.Sleep(time.Hour / 5)
		if _, err := m.Make(t.Context(), Request{Names: []string{"a.example", "b.example"}}); err != nil {
			t.Error(err)
		}
	})
}

// TestAJunkBudgetStopsNothing: it is begun anew.
func TestAJunkBudgetStopsNothing(t *testing.T) {
	f, m := newFleet(t)
	limit(t, m, "internal", config.Limits{Orders: config.Rate{Count: 3, Per: time.Hour}})
	c := make1(t, m, "a.example")
	entry, err := f.log.Get(t.Context(), event.BudgetKey("internal", accountShard))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.log.Append(t.Context(), entry.Key, entry.Position, []byte("junk")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
		t.Error(err)
	}
	if list, err := m.Limits(t.Context(), ""); err != nil || len(list) != 1 || list[0].Left != 1 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestABudgetIsBounded: the buckets that say the least go first.
func TestABudgetIsBounded(t *testing.T) {
	now := time.Now()
	var list []event.Bucket
	for range 3 * event.MaxBuckets {
		list = put(list, event.Bucket{Key: event.NewID(), Full: now.Add(time.Hour)}, now)
	}
	list = put(list, event.Bucket{Key: "keep", Full: now.Add(2 * time.Hour)}, now)
	if _, ok := find(list, "keep"); !ok || len(list) > event.MaxBuckets || !slices.IsSortedFunc(list, func(a, b event.Bucket) int { return strings.Compare(a.Key, b.Key) }) {
		t.Errorf("%d buckets, kept: %v", len(list), ok)
	}
}
