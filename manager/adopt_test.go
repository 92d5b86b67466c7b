// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// lostLog is a manager of a fleet on another log than before, with the same keys and
// configuration, that knows nothing of any certificate.
func lostLog(t *testing.T, f *fleet) *Manager {
	t.Helper()
	other := *f
	other.log = membus.New()
	m := other.manager(t, "")
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.AddGroup(t.Context(), DefaultGroup, f.group.Public()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateConfig(t.Context(), []byte(sharedConfig), bus.Position{}); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestAdopt takes what replicas hold back into a log that lost it: managed under the
// same id, with a history, above what was lost, and renewed from then on.
func TestAdopt(t *testing.T) {
	f, m := newFleet(t)
	first := make1(t, m, "a.example", "b.example")
	second := renew(t, m, first.ID)
	lost := lostLog(t, f)

	adopt := func(data []byte, want Adoption) {
		t.Helper()
		if id, a, err := lost.Adopt(t.Context(), data, "internal"); err != nil || a != want || id != first.ID {
			t.Errorf("%s, %d, %v; want %s and %d", id, a, err, first.ID, want)
		}
	}
	adopt(first.Current, Adopted)
	c, err := lost.Get(t.Context(), first.ID)
	if err != nil || c.Version != first.Version || c.Spec.Issuer != "internal" || len(c.Spec.Names) != 2 || len(c.History) != 1 || c.History[0].Reason != event.ReasonRestored {
		t.Errorf("%+v, %v", c, err)
	}
	adopt(first.Current, Present)
	adopt(second.Current, Advanced)
	adopt(first.Current, Present)
	if c, err = lost.Get(t.Context(), first.ID); err != nil || c.Version != second.Version || len(c.History) != 2 {
		t.Errorf("%+v, %v", c, err)
	}
	var exists *ExistsError
	if _, err := lost.Make(t.Context(), Request{Names: []string{"a.example", "b.example"}}); !errors.As(err, &exists) || exists.ID != first.ID {
		t.Errorf("the names are nobody's: %v", err)
	}
	if next := renew(t, lost, first.ID); !second.Less(next.Version) || next.Epoch != 2 {
		t.Errorf("%v was lost, and %v is next", second.Version, next.Version)
	}
	adopt(second.Current, Present)
}

// TestAdoptRefuses what no manager signed, what has ended, and what nobody can renew.
func TestAdoptRefuses(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	if err := m.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	removed, err := m.Get(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	lost := lostLog(t, f)
	if _, a, err := lost.Adopt(t.Context(), removed.Current, ""); err != nil || a != Skipped {
		t.Errorf("a removal: %d, %v", a, err)
	}
	stranger, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	forged, err := event.Resign(stranger, c.Current)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := lost.Adopt(t.Context(), forged, "internal"); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Errorf("a stranger's: %v", err)
	}
	foreign, err := event.Sign(m.identity.Signing, DefaultTenant, time.Now(), &event.LogInfo{Epoch: 7})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := lost.Adopt(t.Context(), foreign, "internal"); !errors.Is(err, event.ErrUnsupported) {
		t.Errorf("what is no certificate: %v", err)
	}
	var invalid *InvalidError
	if _, _, err := lost.Adopt(t.Context(), c.Current, "nobody"); !errors.As(err, &invalid) {
		t.Errorf("by an issuer that there is not: %v", err)
	}
	if list, err := lost.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("%d certificates, %v", len(list), err)
	}
}
