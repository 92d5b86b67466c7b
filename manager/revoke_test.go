// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/seal"
)

func leafOf(t *testing.T, c *Managed) *x509.Certificate {
	t.Helper()
	leaf, err := c.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestRevoke(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	first := make1(t, m, "a.example")
	second, err := m.Renew(t.Context(), first.ID, event.ReasonRenewal)
	if err != nil {
		t.Fatal(err)
	}

	// An older one: the CA still has it.
	if err := f.manager(t, "").Revoke(t.Context(), first.ID, RevokeOptions{Reason: issuer.Superseded, Generation: 1}); err != nil {
		t.Fatal(err)
	}
	if reason, revoked := ca.Revoked(leafOf(t, first)); !revoked || reason != 4 {
		t.Errorf("generation 1: %v, reason %d", revoked, reason)
	}
	c := at(t, m, first.ID)
	if c.History[0].Revoked.IsZero() || !c.History[1].Revoked.IsZero() || c.Mark != nil {
		t.Errorf("written down: %+v, %+v", c.History, c.Mark)
	}

	// The newest is made anew.
	if err := m.Revoke(t.Context(), first.ID, RevokeOptions{Reason: issuer.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	if reason, revoked := ca.Revoked(leafOf(t, second)); !revoked || reason != 1 {
		t.Errorf("generation 2: %v, reason %d", revoked, reason)
	}
	c = at(t, m, first.ID)
	if c.History[1].Revoked.IsZero() || c.Mark == nil || c.Mark.Reason != event.ReasonCompromised {
		t.Errorf("written down: %+v, %+v", c.History, c.Mark)
	}
	when := c.History[1].Revoked
	if err := m.Revoke(t.Context(), first.ID, RevokeOptions{}); err != nil {
		t.Errorf("again: %v", err)
	}
	if c = at(t, m, first.ID); !c.History[1].Revoked.Equal(when) || c.Mark.Reason != event.ReasonCompromised {
		t.Errorf("written down again: %+v, %+v", c.History, c.Mark)
	}
	third, err := m.Renew(t.Context(), first.ID, event.ReasonRenewal)
	if err != nil || third.Mark != nil || third.History[2].Reason != event.ReasonCompromised {
		t.Fatal(third, err)
	}

	// Without a reason that speaks of the key; and then nobody renews it any more.
	if err := m.Revoke(t.Context(), first.ID, RevokeOptions{Reason: issuer.CessationOfOperation, Remove: true}); err != nil {
		t.Fatal(err)
	}
	if _, revoked := ca.Revoked(leafOf(t, third)); !revoked {
		t.Error("generation 3 is not revoked")
	}
	if c = at(t, m, first.ID); !c.Removed || c.Mark != nil || c.History[2].Revoked.IsZero() || c.History[3].Reason != event.ReasonRemoved {
		t.Errorf("%+v", c.State)
	}
	var removed *RemovedError
	if err := m.Revoke(t.Context(), first.ID, RevokeOptions{}); !errors.As(err, &removed) {
		t.Error(err)
	}
}

func TestRevokeByKey(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	c := make1(t, m, "a.example")
	var invalid *InvalidError
	if err := m.Revoke(t.Context(), c.ID, RevokeOptions{ByKey: true}); !errors.As(err, &invalid) {
		t.Errorf("without the group's key: %v", err)
	}
	holder := f.manager(t, "")
	holder.keys = func(string) ([]*seal.PrivateKey, error) { return []*seal.PrivateKey{f.group}, nil }
	if err := holder.Revoke(t.Context(), c.ID, RevokeOptions{ByKey: true, Reason: issuer.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	if reason, revoked := ca.Revoked(leafOf(t, c)); !revoked || reason != 1 {
		t.Errorf("%v, reason %d", revoked, reason)
	}
	if _, err := holder.Renew(t.Context(), c.ID, event.ReasonRenewal); err != nil {
		t.Fatal(err)
	}
	if err := holder.Revoke(t.Context(), c.ID, RevokeOptions{ByKey: true, Generation: 1}); !errors.As(err, &invalid) {
		t.Errorf("a former key: %v", err)
	}
}

func TestWhatCannotBeRevoked(t *testing.T) {
	_, m, _ := newACMEFleet(t, acmetest.Options{})
	other := elsewhere(t, newSigner(t), "a.example")
	other.Issuer = "internal"
	local, err := m.Import(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	public := make1(t, m, "b.example")
	brought, err := m.Import(t.Context(), elsewhere(t, newSigner(t), "c.example"))
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		id      string
		o       RevokeOptions
		invalid bool
	}{
		"by another built-in CA":  {local.ID, RevokeOptions{}, false},
		"no such generation":      {public.ID, RevokeOptions{Generation: 7}, true},
		"by an account not asked": {brought.ID, RevokeOptions{}, false},
	} {
		err := m.Revoke(t.Context(), c.id, c.o)
		var invalid *InvalidError
		if err == nil || errors.As(err, &invalid) != c.invalid {
			t.Errorf("%s: %v", what, err)
		}
		if now := at(t, m, c.id); now.Mark != nil || !now.History[0].Revoked.IsZero() {
			t.Errorf("%s: %+v", what, now.State)
		}
	}
	var missing *NotFoundError
	if err := m.Revoke(t.Context(), event.NewID(), RevokeOptions{}); !errors.As(err, &missing) {
		t.Error(err)
	}
}

// TestRevokeImported is of a certificate that another CA signed: the issuer does
// not know it, and the error says who does.
func TestRevokeImported(t *testing.T) {
	_, m, _ := newACMEFleet(t, acmetest.Options{})
	c, err := m.Import(t.Context(), elsewhere(t, newSigner(t), "a.example"))
	if err != nil {
		t.Fatal(err)
	}
	err = m.Revoke(t.Context(), c.ID, RevokeOptions{})
	if by := leafOf(t, c).Issuer.String(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("it was imported, and signed by %q", by)) {
		t.Errorf("%v, want that %s signed it", err, by)
	}
	if c = at(t, m, c.ID); !c.History[0].Revoked.IsZero() || c.Mark != nil {
		t.Errorf("written down: %+v, %+v", c.History, c.Mark)
	}
}

func TestRenewalInformation(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	c := make1(t, m, "a.example")
	start := time.Now().Add(-2 * time.Hour).Truncate(time.Second)
	if err := ca.SetRenewalInfo(leafOf(t, c), start, start.Add(time.Hour), "https://ca.example/why"); err != nil {
		t.Fatal(err)
	}
	c, err := m.askRenewal(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	w := at(t, m, c.ID).Renewal
	if w == nil || !w.Start.Equal(start) || !w.End.Equal(start.Add(time.Hour)) || w.Explanation != "https://ca.example/why" || w.Generation != 1 || !w.Next.After(w.Asked) {
		t.Fatalf("%+v", w)
	}

	// What cannot be asked keeps what it said.
	if err := ca.SetRenewalAnswer(leafOf(t, c), "nonsense"); err != nil {
		t.Fatal(err)
	}
	again, err := m.askRenewal(t.Context(), c)
	if err == nil || again == nil || !again.Renewal.Start.Equal(start) || again.Renewal.Next.Sub(again.Renewal.Asked) != afterSilence {
		t.Fatalf("%+v %v", again, err)
	}
	if now := at(t, m, c.ID); now.Position != again.Position || !now.Renewal.Start.Equal(start) {
		t.Errorf("written down: %+v", now.Renewal)
	}

	// It is of one generation only, and the order says what it replaces.
	renewed, err := f.manager(t, "").Renew(t.Context(), c.ID, event.ReasonRenewal)
	if err != nil || renewed.Renewal != nil {
		t.Fatal(renewed, err)
	}
	if _, err := m.askRenewal(t.Context(), c); !conflict(err) {
		t.Errorf("of a former generation: %v", err)
	}

	local, err := m.Make(t.Context(), Request{Names: []string{"b.example"}, Issuer: "internal"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.askRenewal(t.Context(), local); !errors.Is(err, issuer.ErrNoRenewalInfo) || at(t, m, local.ID).Renewal != nil {
		t.Errorf("of the built-in CA: %v", err)
	}
}
