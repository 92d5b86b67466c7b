// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// keeping is a manager over restarts: each keeps what it learnt for the next.
func (f *fleet) keeping(t *testing.T, kept *[]byte) *Manager {
	t.Helper()
	return f.configured(t, func(c *Config) {
		c.Chain = *kept
		c.Learnt = func(chain []byte) { *kept = slices.Clone(chain) }
	})
}

// stands returns the list of managers on the bus.
func (f *fleet) stands(t *testing.T) (*event.ManagerChain, bus.Entry) {
	t.Helper()
	entry, err := f.log.Get(t.Context(), event.ManagersKey)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Trusted(DefaultTenant, entry.Data)
	if err != nil {
		t.Fatal(err)
	}
	return e.Body.(*event.ManagerChain), entry
}

// TestARevokedManagerDoesNotComeBack, as one that can still write to the bus
// would: by a list that goes on from the one before its revocation.
func TestARevokedManagerDoesNotComeBack(t *testing.T) {
	f, _ := newFleet(t)
	var kept []byte
	m := f.keeping(t, &kept)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := f.other(t, m, "b", "")
	before, _ := f.stands(t)
	if err := m.RevokeSigner(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	_, entry := f.stands(t)
	fork := &event.ManagerSet{Serial: 9, Keys: []event.ManagerKey{
		{Name: "b", Key: b.Signing.Public().Bytes()}, {Name: "a", Key: f.identity.Signing.Public().Bytes()},
	}}
	if err := before.Add(b.Signing, DefaultTenant, time.Now(), fork); err != nil {
		t.Fatal(err)
	}
	data, err := event.Sign(b.Signing, DefaultTenant, time.Now(), before)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.log.Append(t.Context(), event.ManagersKey, entry.Position, data); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if set, err := f.keeping(t, &kept).Signers(t.Context()); !errors.Is(err, seal.ErrUnknownSigner) {
			t.Fatalf("after a start it is believed again: %+v %v", set, err)
		}
	}
	// Who keeps nothing cannot know.
	if set, err := f.manager(t, "").Signers(t.Context()); err != nil || set.Serial != 9 {
		t.Errorf("%+v %v: the test shows nothing", set, err)
	}
}

// TestTheListOfManagersIsPutBack where the log went back, or lost it.
func TestTheListOfManagersIsPutBack(t *testing.T) {
	f, _ := newFleet(t)
	var kept []byte
	m := f.keeping(t, &kept)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, old := f.stands(t)
	f.other(t, m, "b", "")
	_, now := f.stands(t)
	if _, err := f.log.Append(t.Context(), event.ManagersKey, now.Position, old.Data); err != nil {
		t.Fatal(err)
	}
	again := f.keeping(t, &kept)
	if _, err := again.Signers(t.Context()); !errors.Is(err, event.ErrOldManagers) {
		t.Errorf("an older list: %v", err)
	}
	if err := again.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if set, err := again.Signers(t.Context()); err != nil || set.Serial != 2 || len(set.Keys) != 2 {
		t.Errorf("after it was put back: %+v %v", set, err)
	}
	f.log = &forgetful{Log: f.log, key: event.ManagersKey}
	again = f.keeping(t, &kept)
	if err := again.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	if set, err := again.Signers(t.Context()); err != nil || set.Serial != 2 {
		t.Errorf("after it was lost: %+v %v", set, err)
	}
}

// TestAnUnfitListOfManagers that was kept is left out.
func TestAnUnfitListOfManagers(t *testing.T) {
	f, m := newFleet(t)
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	stranger, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	set := &event.ManagerSet{Serial: 7, Keys: []event.ManagerKey{{Name: "x", Key: stranger.Signing.Public().Bytes()}}}
	chain := new(event.ManagerChain)
	if err := chain.Add(stranger.Signing, DefaultTenant, time.Now(), set); err != nil {
		t.Fatal(err)
	}
	foreign, err := event.Sign(stranger.Signing, DefaultTenant, time.Now(), chain)
	if err != nil {
		t.Fatal(err)
	}
	for _, kept := range [][]byte{foreign, []byte("junk")} {
		if set, err := f.keeping(t, &kept).Signers(t.Context()); err != nil || set.Serial != 1 {
			t.Errorf("%+v %v", set, err)
		}
	}
}

// TestATokenEndsWithItsMaker: whoever stole a manager's directory may have kept
// some, one of them used up by a request that he has not sent yet.
func TestATokenEndsWithItsMaker(t *testing.T) {
	f, m := newJoinable(t)
	b := f.other(t, m, "b", "")
	mb := f.as(t, b, f.identity.Signing.Public())
	unused, used := f.guest(t, newToken(t, mb)), f.guest(t, newToken(t, mb))
	request := used.signed(t, nil)
	body, at, err := get[*event.JoinToken](t.Context(), mb, event.TokenKey(used.ID))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(request)
	body.Request, body.Used = sum[:], time.Now()
	if _, err := mb.append(t.Context(), at, body); err != nil {
		t.Fatal(err)
	}
	if err := m.RevokeSigner(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	unused.ask(t)
	if _, err := f.log.Append(t.Context(), event.JoinKey(used.ID), bus.Position{}, request); err != nil {
		t.Fatal(err)
	}
	if n, err := m.Grant(t.Context(), DefaultGroup, []*seal.PrivateKey{f.group}); err != nil || n != 0 {
		t.Errorf("%d were let in, %v", n, err)
	}
	for what, g := range map[string]*guest{"unused": unused, "used": used} {
		if h := g.member(t, m); h != nil {
			t.Errorf("a member by a token that was %s: %s", what, h.ID)
		}
	}
}
