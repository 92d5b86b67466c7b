// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// waiting waits in the background.
func waiting(t *testing.T, m *Manager, c *Managed, most time.Duration) <-chan error {
	result := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), most)
	go func() {
		defer cancel()
		_, err := m.Wait(ctx, c.ID, c.Version, nil)
		result <- err
	}()
	synctest.Wait()
	return result
}

func done(result <-chan error) (error, bool) {
	synctest.Wait()
	select {
	case err := <-result:
		return err, true
	default:
		return nil, false
	}
}

func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		c := make1(t, m, "a.example")
		one, two := f.join(t, m, "one"), f.join(t, m, "two")
		f.join(t, m, "never")
		one.report(holds(c))
		two.report(holds(c))
		if err, ok := done(waiting(t, m, c, time.Minute)); !ok || err != nil {
			t.Fatal("all serve it: ", err)
		}
		c, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
		if err != nil {
			t.Fatal(err)
		}
		result := waiting(t, m, c, time.Hour)
		one.report(holds(c))
		late := f.join(t, m, "late")
		late.report()
		two.report(holds(c))
		if _, ok := done(result); ok {
			t.Fatal("one that joined meanwhile does not serve it")
		}
		late.report(holds(c))
		if err, ok := done(result); !ok || err != nil {
			t.Fatal(err)
		}

		// A later version will do, and who is revoked is not waited for.
		next, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
		if err != nil {
			t.Fatal(err)
		}
		result = waiting(t, m, next, time.Hour)
		next, err = m.Renew(t.Context(), c.ID, event.ReasonRekey)
		if err != nil {
			t.Fatal(err)
		}
		one.report(holds(next))
		two.report(holds(next))
		if _, ok := done(result); ok {
			t.Fatal("one does not serve it")
		}
		late.revoke(m)
		if err, ok := done(result); !ok || err != nil {
			t.Fatal(err)
		}

		// A removal is served when it was taken.
		if err := m.Remove(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		removed := at(t, m, c.ID)
		result = waiting(t, m, removed, time.Hour)
		for _, h := range []*testMember{one, two} {
			if _, ok := done(result); ok {
				t.Fatal("the removal was not taken")
			}
			h.report(event.Received{ID: c.ID, Version: removed.Version, Removed: true, At: time.Now()})
		}
		if err, ok := done(result); !ok || err != nil {
			t.Fatal(err)
		}
	})
}

func TestWhatIsNotServedIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newReportingFleet(t)
		c := make1(t, m, "a.example")
		silent := f.join(t, m, "silent")
		silent.report(holds(c))
		old := holds(c)
		c, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
		if err != nil {
			t.Fatal(err)
		}
		f.join(t, m, "never")
		time.Sleep(SilentAfter)
		f.join(t, m, "good").report(holds(c))
		refused := old
		refused.Error = "no such key"
		f.join(t, m, "refuses").report(refused)
		cut := f.join(t, m, "cut-off")
		cut.put(&event.Receipt{Error: "no route to host"}, cut.key, time.Now())
		received := holds(c)
		received.Served = time.Time{}
		f.join(t, m, "slow").report(received)

		var told []string
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = m.Wait(ctx, c.ID, c.Version, func(served, of int, missing []string) {
			if served != 1 || of != 5 {
				t.Errorf("%d of %d", served, of)
			}
			told = missing
		})
		var not *NotServedError
		if !errors.As(err, &not) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if not.Served != 1 || not.Of != 5 || len(not.Missing) != 4 || len(not.Unreported) != 1 || strings.Join(told, ",") != "cut-off,refuses,silent,slow" {
			t.Errorf("%+v, told %q", not, told)
		}
		for _, want := range []string{
			"served by 1 of 5 replicas", "silent since 2", "it had version 1.1", "refused a newer one: no such key",
			"has none of it, and does not reach the bus: no route to host", "does not serve it yet", "not waited for: joined on 2",
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("without %q: %v", want, err)
			}
		}
	})
}

func TestWaitNeedsABoard(t *testing.T) {
	f, m := newReportingFleet(t)
	c := make1(t, m, "a.example")
	f.log = struct{ bus.Log }{f.log}
	if _, err := f.manager(t, "").Wait(t.Context(), c.ID, c.Version, nil); !errors.Is(err, ErrNoBoard) {
		t.Error(err)
	}
	var missing *NotFoundError
	if _, err := m.Wait(t.Context(), event.NewID(), c.Version, nil); !errors.As(err, &missing) {
		t.Error(err)
	}
}
