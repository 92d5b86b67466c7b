// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
)

// lastReason returns why the newest generation was made.
func (c *Managed) lastReason() string { return c.History[len(c.History)-1].Reason }

func TestAMarkedCertificateIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c, other := make1(t, m, "a.example"), make1(t, m, "b.example")
		stop := run(t, f.manager(t, ""))
		defer stop()
		time.Sleep(time.Hour)
		if err := m.Mark(t.Context(), c.ID, event.ReasonGroupKey); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		got := at(t, m, c.ID)
		if got.Generation != 2 || got.Mark != nil || got.lastReason() != event.ReasonGroupKey {
			t.Errorf("generation %d, %+v, because %s", got.Generation, got.Mark, got.lastReason())
		}
		if n := at(t, m, other.ID).Generation; n != 1 {
			t.Errorf("another certificate has generation %d", n)
		}
	})
}

func TestAMarkedCertificateBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		runner, i := f.manager(t, ""), new(faultyIssuer)
		wrap(t, runner, i)
		tries := 0
		i.set(func(context.Context) error { tries++; return errors.New("CA is down") })
		stop := run(t, runner)
		defer stop()
		if err := m.Mark(t.Context(), c.ID, event.ReasonCompromised); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := at(t, m, c.ID); tries != 4 || got.Mark == nil || got.Failure == nil {
			t.Fatalf("%d attempts in two hours, %+v, %+v", tries, got.Mark, got.Failure)
		}
		// The operator has mended it, and does not want to wait for the back-off.
		i.set(nil)
		if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := at(t, m, c.ID); got.Generation != 2 || got.Mark != nil || got.lastReason() != event.ReasonCompromised {
			t.Errorf("generation %d because %s, %+v", got.Generation, got.lastReason(), got.Mark)
		}
	})
}

func TestMarkingEndsABackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := newFleet(t)
		c := make1(t, m, "a.example")
		wrap(t, m, &faultyIssuer{before: func(context.Context) error { return errors.New("CA is down") }})
		for range 4 {
			if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); err == nil {
				t.Fatal("renewed")
			}
		}
		if wait := time.Until(at(t, m, c.ID).RenewAt()); wait < 23*time.Hour {
			t.Fatal(wait)
		}
		if err := m.Mark(t.Context(), c.ID, event.ReasonCompromised); err != nil {
			t.Fatal(err)
		}
		if wait := time.Until(at(t, m, c.ID).RenewAt()); wait > 0 {
			t.Errorf("due in %v", wait)
		}
	})
}

func TestMarksOfMarks(t *testing.T) {
	_, m := newFleet(t)
	c := make1(t, m, "a.example")
	var first *event.Mark
	for _, step := range []struct{ reason, want string }{
		{event.ReasonGroupKey, event.ReasonGroupKey},
		{event.ReasonRollback, event.ReasonGroupKey},
		{event.ReasonCompromised, event.ReasonCompromised},
		{event.ReasonCompromised, event.ReasonCompromised},
		{event.ReasonGroupKey, event.ReasonCompromised},
	} {
		before := at(t, m, c.ID)
		if err := m.Mark(t.Context(), c.ID, step.reason); err != nil {
			t.Fatal(err)
		}
		got := at(t, m, c.ID)
		if got.Mark == nil || got.Mark.Reason != step.want {
			t.Fatalf("%s: %+v", step.reason, got.Mark)
		}
		if unchanged := before.Mark != nil && before.Mark.Reason == step.want; unchanged != (got.Position == before.Position) {
			t.Errorf("%s: written anew: %t", step.reason, !unchanged)
		}
		first = before.Mark
	}
	if first == nil {
		t.Fatal("no mark")
	}
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err != nil {
		t.Fatal(err)
	}
	if got := at(t, m, c.ID); got.lastReason() != event.ReasonCompromised {
		t.Error(got.lastReason())
	}
	// A removal ends it, and what is removed cannot be marked.
	if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	var removed *RemovedError
	if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); !errors.As(err, &removed) || at(t, m, c.ID).Mark != nil {
		t.Error(err)
	}
	var missing *NotFoundError
	if err := m.Mark(t.Context(), event.NewID(), event.ReasonRekey); !errors.As(err, &missing) {
		t.Error(err)
	}
}

// TestAMarkVoidsWhatIsUnderWay: the group's key, say, was read before it was
// replaced.
func TestAMarkVoidsWhatIsUnderWay(t *testing.T) {
	for _, slow := range []time.Duration{time.Second, 3 * time.Minute} { // the claim is renewed in between, or not
		synctest.Test(t, func(t *testing.T) {
			f, m := newFleet(t)
			c := make1(t, m, "a.example")
			orders := 0
			wrap(t, m, &faultyIssuer{before: func(ctx context.Context) error {
				if orders++; orders > 1 {
					return nil
				}
				if err := f.manager(t, "").Mark(ctx, c.ID, event.ReasonGroupKey); err != nil {
					t.Error(err)
				}
				select {
				case <-time.After(slow):
				case <-ctx.Done():
				}
				return ctx.Err()
			}})
			got, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal)
			if err != nil || got.Generation != 2 || got.lastReason() != event.ReasonGroupKey || got.Mark != nil || orders != 2 {
				t.Errorf("%v: %+v after %d orders, %v", slow, got, orders, err)
			}
		})
	}
}

func TestMarkGroup(t *testing.T) {
	f, m := newFleet(t)
	if err := m.AddGroup(t.Context(), "other", f.group.Public()); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		make1(t, m, fmt.Sprintf("h%d.example", i))
	}
	gone := make1(t, m, "gone.example")
	if err := m.Remove(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	c, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Group: "other"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n, err := m.MarkGroup(t.Context(), DefaultGroup, event.ReasonGroupKey); err != nil || n != 5 {
			t.Fatal(n, err)
		}
	}
	if at(t, m, c.ID).Mark != nil {
		t.Error("another group's certificate is marked")
	}
}
