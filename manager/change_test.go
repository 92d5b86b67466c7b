// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/solver"
)

// localCAs configures a second built-in CA, "other", and "narrow", which signs for one
// domain.
const localCAs = `default_issuer: internal
issuers:
  internal: {type: local}
  other: {type: local}
  narrow: {type: local, policy: {dns: [b.example]}}
`

// TestAnotherIssuer is chosen while an order is under way, and waits to be tried again:
// nothing of that stays, and the id does.
func TestAnotherIssuer(t *testing.T) {
	f, m := newFleet(t)
	f.configure(t, m, localCAs)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	c := make1(t, m, "a.example")
	ca.set(fails(recorded, &issuer.Hint{After: time.Now().Add(time.Hour), Err: errors.New("the account is deactivated")}))
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err == nil {
		t.Fatal("renewed")
	}
	if now := at(t, m, c.ID); now.Order == nil || now.Failure == nil {
		t.Fatalf("%+v", now.State)
	}
	changed, err := m.Change(t.Context(), c.ID, Change{Issuers: []string{"other", "internal"}})
	if err != nil {
		t.Fatal(err)
	}
	now := at(t, m, c.ID)
	if now.Position != changed.Position || now.Version != c.Version || now.Spec.Issuer != "other" || !slices.Equal(now.Spec.Fallbacks, []string{"internal"}) {
		t.Errorf("changed: %+v", now.State)
	}
	if now.Mark == nil || now.Mark.Reason != event.ReasonChanged || now.Order != nil || now.Failure != nil || now.RenewAt().After(time.Now()) {
		t.Errorf("not due at once: %+v", now.State)
	}
	results, err := m.RenewDue(t.Context(), DueOptions{})
	if err != nil || len(results) != 1 || results[0].Err != nil || results[0].Issuer != "other" {
		t.Fatal(results, err)
	}
	got := at(t, m, c.ID)
	if r := got.History[1]; got.Generation != 2 || r.Reason != event.ReasonChanged || r.Issuer != "other" || got.Mark != nil {
		t.Errorf("renewed: %+v", got.State)
	}
	// What it is already needs no other certificate.
	if same, err := m.Change(t.Context(), c.ID, Change{Issuers: []string{"other", "internal"}}); err != nil || same.Position != got.Position {
		t.Error(same, err)
	}
	if same, err := m.Change(t.Context(), c.ID, Change{Issuers: []string{"other"}}); err != nil || same.Mark != nil || len(same.Spec.Fallbacks) != 0 {
		t.Error("without a stand-in:", same, err)
	}
}

// TestAnotherIssuerInBetween: what the former one signs meanwhile is not published.
func TestAnotherIssuerInBetween(t *testing.T) {
	f, m := newFleet(t)
	f.configure(t, m, localCAs)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	c := make1(t, m, "a.example")
	ca.set(func(ctx context.Context, s stage) error {
		if s != finalised {
			return nil
		}
		_, err := m.Change(ctx, c.ID, Change{Issuers: []string{"other"}})
		return err
	})
	got, err := m.Renew(t.Context(), c.ID, event.ReasonRekey)
	if err != nil || got.Generation != 2 || got.History[1].Issuer != "other" || got.History[1].Reason != event.ReasonChanged {
		t.Fatal(got, err)
	}
}

// TestAnUnfinishedCertificateOfAnotherIssuer is one that the first one never signed.
func TestAnUnfinishedCertificateOfAnotherIssuer(t *testing.T) {
	f, m := newFleet(t)
	f.configure(t, m, localCAs)
	ca := newOrderCA(t, m)
	use(t, m, ca)
	ca.set(fails(finalised, errors.New("CA is down")))
	var unfinished *UnfinishedError
	if _, err := m.Make(t.Context(), Request{Names: []string{"a.example"}}); !errors.As(err, &unfinished) {
		t.Fatal(err)
	}
	if _, err := m.Change(t.Context(), unfinished.ID, Change{Issuers: []string{"other"}}); err != nil {
		t.Fatal(err)
	}
	got, err := m.Renew(t.Context(), unfinished.ID, event.ReasonRekey)
	if err != nil || got.Generation != 1 || got.History[0].Issuer != "other" {
		t.Fatal(got, err)
	}
}

// TestChangesThatCannotBe change nothing.
func TestChangesThatCannotBe(t *testing.T) {
	f, m := newFleet(t)
	many, config := strings.Split("a b c d e f g h i", " "), localCAs
	for _, name := range many {
		config += "  " + name + ": {type: local}\n"
	}
	f.configure(t, m, config)
	c := make1(t, m, "a.example", "*.a.example")
	word := func(s string) *string { return &s }
	for says, to := range map[string]Change{
		`there is no issuer "nobody"`:      {Issuers: []string{"nobody"}},
		`there is no issuer "nobody2"`:     {Issuers: []string{"other", "nobody2"}},
		`issuer "other" is named twice`:    {Issuers: []string{"other", "other"}},
		`issuer "narrow": `:                {Issuers: []string{"narrow"}},
		"for an issuer of type acme":       {Profile: word("shortlived")},
		`unknown challenge "telepathy"`:    {Challenge: word("telepathy")},
		"at most 8 are possible":           {Issuers: many},
		"a challenge or a profile is for ": {Issuers: []string{"other"}, Challenge: word(solver.HTTP01)},
	} {
		var invalid *InvalidError
		if _, err := m.Change(t.Context(), c.ID, to); !errors.As(err, &invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", to, err, says)
		}
	}
	if now := at(t, m, c.ID); now.Position != c.Position {
		t.Errorf("changed: %+v", now.State)
	}
	if err := m.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	var removed *RemovedError
	if _, err := m.Change(t.Context(), c.ID, Change{Issuers: []string{"other"}}); !errors.As(err, &removed) {
		t.Error(err)
	}
}

// TestAnotherProfileAndChallenge: the one is another certificate, the other is not.
func TestAnotherProfileAndChallenge(t *testing.T) {
	_, m, _ := newACMEFleet(t, acmetest.Options{Profiles: map[string]time.Duration{"short": 6 * day, "long": 90 * day}})
	c, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Profile: "long"})
	if err != nil {
		t.Fatal(err)
	}
	challenge, profile, none := solver.DNS01, "short", ""
	if c, err = m.Change(t.Context(), c.ID, Change{Challenge: &challenge}); err != nil || c.Spec.Challenge != challenge || c.Mark != nil {
		t.Fatal(c, err)
	}
	if c, err = m.Change(t.Context(), c.ID, Change{Challenge: &none, Profile: &profile}); err != nil || c.Spec.Challenge != "" || c.Mark == nil {
		t.Fatal(c, err)
	}
	if c, err = m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil || time.Until(c.Certificate.NotAfter) > 7*day {
		t.Fatal(c, err)
	}
}
