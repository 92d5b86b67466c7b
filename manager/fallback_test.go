// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
)

func TestAsks(t *testing.T) {
	now := time.Now()
	v := event.Version{Epoch: 1, Generation: 4}
	c := &Managed{
		State:       event.State{ID: event.NewID(), Version: v, Spec: event.Spec{Issuer: "a", Fallbacks: []string{"b", "c"}}},
		Certificate: &event.Certificate{Version: v, NotBefore: now.Add(-60 * day), NotAfter: now.Add(30 * day)}, Issued: now.Add(-60 * day),
	}
	for failures, want := range map[uint64]string{0: "a", 1: "a", 2: "b", 3: "b", 4: "c", 5: "c", 6: "a", 13: "a"} {
		c.Failure = &event.Failure{Attempts: failures, At: now, Issuer: "x"}
		if got := c.asks(2); got != want {
			t.Errorf("%d failures: %s, want %s", failures, got, want)
		}
	}
	// One that wants to be left alone until the certificate is in danger.
	c.Failure = &event.Failure{Attempts: 1, At: now, Issuer: "a", RetryAfter: now.Add(29 * day), Next: now.Add(day)}
	if got := c.asks(2); got != "b" {
		t.Error(got)
	}
	if wait := c.RenewAt().Sub(now); wait > 2*time.Minute {
		t.Errorf("the stand-in is asked after %v", wait)
	}
	c.Failure.RetryAfter = now.Add(time.Hour)
	if got := c.asks(2); got != "a" {
		t.Error(got)
	}
	// An order stays with its issuer, as long as there is time.
	c.Order = &event.Order{Generation: 5, Issuer: "a", URL: "https://ca/order"}
	c.Failure = &event.Failure{Attempts: 2, At: now, Issuer: "a"}
	if got := c.asks(2); got != "a" {
		t.Error(got)
	}
	c.Failure.At = now.Add(29 * day)
	if got := c.asks(2); got != "b" {
		t.Error(got)
	}
	// Without a stand-in there is nobody else.
	alone := *c
	alone.Spec.Fallbacks, alone.Order = nil, nil
	if _, ok := alone.standsIn("a", 2); ok || alone.asks(2) != "a" {
		t.Error("there is no other issuer")
	}
}

// TestAStandInIsAsked after failures, keeps the id, and gives way again.
func TestAStandInIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		otherIssuer(t, m)
		c, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Issuer: "internal", Fallbacks: []string{"other"}})
		if err != nil {
			t.Fatal(err)
		}
		alone := make1(t, m, "b.example")
		runner := f.manager(t, "")
		i := new(faultyIssuer)
		wrap(t, runner, i)
		i.set(func(context.Context) error { return errors.New("CA is down") })
		stop := run(t, runner)
		defer stop()
		time.Sleep(61 * day)
		got := at(t, m, c.ID)
		if r, _ := got.newest(); got.Generation != 2 || r.Issuer != "other" || got.Failure != nil {
			t.Fatalf("%+v", got.State)
		}
		if c := at(t, m, alone.ID); c.Generation != 1 || c.Failure == nil || c.Failure.Issuer != "internal" {
			t.Errorf("%+v", c.State)
		}
		i.set(nil)
		if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		if r, _ := at(t, m, c.ID).newest(); r.Issuer != "internal" {
			t.Errorf("%+v", r)
		}
	})
}

// TestAStandInIsAskedWhereABudgetWouldEndTheCertificate, and only there.
func TestAStandInIsAskedWhereABudgetWouldEndTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		otherIssuer(t, m)
		limits := config.Limits{Set: config.Rate{Count: 1, Per: 88 * day}}
		limit(t, m, "internal", limits)
		c, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Issuer: "internal", Fallbacks: []string{"other"}})
		if err != nil {
			t.Fatal(err)
		}
		patient, err := m.Make(t.Context(), Request{Names: []string{"b.example"}, Issuer: "internal"})
		if err != nil {
			t.Fatal(err)
		}
		runner := f.manager(t, "")
		limit(t, runner, "internal", limits)
		stop := run(t, runner)
		defer stop()
		time.Sleep(61 * day)
		got := at(t, m, c.ID)
		if r, _ := got.newest(); got.Generation != 2 || r.Issuer != "other" || got.Hold != nil {
			t.Errorf("%+v", got.State)
		}
		if c := at(t, m, patient.ID); c.Generation != 1 || c.Hold == nil || c.Failure != nil {
			t.Errorf("%+v", c.State)
		}
		time.Sleep(28 * day) // in the end the CA is asked, whatever the budget says
		if c := at(t, m, patient.ID); c.Generation != 2 {
			t.Errorf("%+v", c.State)
		}
	})
}
