// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
)

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		paused, other := make1(t, m, "a.example"), make1(t, m, "b.example")
		stop := run(t, f.manager(t, ""))
		defer stop()
		if err := m.Pause(t.Context(), paused.ID, "freeze\n"); err != nil {
			t.Fatal(err)
		}
		if err := m.Pause(t.Context(), paused.ID, ""); err != nil { // keeps the reason
			t.Fatal(err)
		}
		time.Sleep(61 * day)
		if c := at(t, m, paused.ID); c.Generation != 1 || c.Pause.Reason != "freeze " {
			t.Errorf("%+v", c.State)
		}
		if c := at(t, m, other.ID); c.Generation != 2 {
			t.Error("another certificate was not renewed")
		}
		if e := m.NewExplainer(t.Context()).Explain(at(t, m, paused.ID)); e.Cause != CausePause || e.Due || !e.At.IsZero() || !strings.Contains(e.Why, "freeze") {
			t.Errorf("%+v", e)
		}
		var invalid *InvalidError
		if _, err := m.Renew(t.Context(), paused.ID, event.ReasonRekey); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "cert resume") {
			t.Error(err)
		}
		if list, err := m.RenewDue(t.Context(), DueOptions{}); err != nil || len(list) != 0 {
			t.Error(list, err)
		}
		if err := m.Resume(t.Context(), paused.ID, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if c := at(t, m, paused.ID); c.Generation != 2 || c.Pause != nil {
			t.Errorf("%+v", c.State)
		}
	})
}

// TestAPausedIssuerWaits, and does nothing meanwhile, whatever others do.
func TestAPausedIssuerWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		otherIssuer(t, m)
		var ids []string
		for n := range 3 * perIssuer {
			ids = append(ids, make1(t, m, fmt.Sprintf("h%d.example", n)).ID)
		}
		healthy, err := m.Make(t.Context(), Request{Names: []string{"other.example"}, Issuer: "other"})
		if err != nil {
			t.Fatal(err)
		}
		counter := &appends{Log: f.log, n: make(map[string]int)}
		f.log = counter
		runner := f.manager(t, "")
		stop := run(t, runner)
		defer stop()
		for _, reason := range []string{"it is old", "it is being moved", ""} { // the last one that was given counts
			if err := m.PauseIssuer(t.Context(), "internal", reason); err != nil {
				t.Fatal(err)
			}
		}
		if marked, err := m.MarkIssuer(t.Context(), "internal", event.ReasonRekey); err != nil || len(marked) != len(ids) {
			t.Fatal(marked, err)
		}
		time.Sleep(61 * day)
		for _, id := range ids {
			if n := counter.count(event.StateKey(id)); n != 0 {
				t.Errorf("the state of a paused issuer's certificate was written %d times", n)
			}
		}
		if c := at(t, m, healthy.ID); c.Generation != 2 {
			t.Error("another issuer's certificate was not renewed")
		}
		if q := runner.Stats().Queues; len(q) != 1 || q[0].Waiting != len(ids) || q[0].Running != 0 || !q[0].Paused {
			t.Errorf("%+v", q)
		}
		if e := m.NewExplainer(t.Context()).Explain(at(t, m, ids[0])); e.Cause != CausePause || !strings.Contains(e.Why, "it is being moved") {
			t.Errorf("%+v", e)
		}
		var invalid *InvalidError
		if _, err := m.Renew(t.Context(), ids[0], event.ReasonRekey); !errors.As(err, &invalid) {
			t.Error(err)
		}
		if list, err := m.RenewDue(t.Context(), DueOptions{Only: ids}); err != nil || len(list) != 0 {
			t.Error(list, err)
		}
		if err := m.ResumeIssuer(t.Context(), "internal", ""); err != nil {
			t.Fatal(err)
		}
		if err := m.WatchMarked(t.Context(), ids, nil); err != nil {
			t.Error(err)
		}
		if err := m.PauseIssuer(t.Context(), "nobody", ""); !errors.As(err, &invalid) {
			t.Error(err)
		}
	})
}

// TestMarkIssuerWithoutAManager: a pass over the ids makes them anew.
func TestMarkIssuerWithoutAManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		otherIssuer(t, m)
		a, b := make1(t, m, "a.example"), make1(t, m, "b.example")
		c, err := m.Make(t.Context(), Request{Names: []string{"c.example"}, Issuer: "other"})
		if err != nil {
			t.Fatal(err)
		}
		ids, err := m.MarkIssuer(t.Context(), "internal", event.ReasonRekey)
		if err != nil || len(ids) != 2 {
			t.Fatal(ids, err)
		}
		broken := f.manager(t, "")
		i := new(faultyIssuer)
		wrap(t, broken, i)
		i.set(func(context.Context) error { return errors.New("CA is down") })
		if _, err := broken.RenewDue(t.Context(), DueOptions{Only: ids[:1]}); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var told [3]int
		if err := m.WatchMarked(short, ids, func(done, failed, of int) { told = [3]int{done, failed, of} }); !errors.Is(err, context.DeadlineExceeded) || told != [3]int{0, 1, 2} {
			t.Error(err, told)
		}
		time.Sleep(time.Hour)
		if list, err := m.RenewDue(t.Context(), DueOptions{Only: ids}); err != nil || len(list) != 2 {
			t.Error(list, err)
		}
		if err := m.WatchMarked(t.Context(), ids, nil); err != nil {
			t.Error(err)
		}
		for id, want := range map[string]uint64{a.ID: 2, b.ID: 2, c.ID: 1} {
			if got := at(t, m, id).Generation; got != want {
				t.Errorf("generation %d, want %d", got, want)
			}
		}
	})
}
