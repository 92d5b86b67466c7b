// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// told keeps what Config.Revoked was told last.
type told struct {
	mu    sync.Mutex
	users []string // guarded by mu
	times int      // guarded by mu
}

func (x *told) tell(users []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.users = users
	x.times++
}

func (x *told) last() ([]string, int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.users, x.times
}

func TestRevokingAMember(t *testing.T) {
	f, m := newJoinable(t)
	if err := m.AddGroup(t.Context(), "other", newKey(t).Public()); err != nil {
		t.Fatal(err)
	}
	own := makeMany(t, m, 3)
	foreign, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Group: "other"})
	if err != nil {
		t.Fatal(err)
	}
	bad, good := f.joined(t, m, "bad"), f.joined(t, m, "good")
	r, err := m.RevokeMember(t.Context(), bad.ID)
	if err != nil || r.Marked != 3 || !r.Exposed || r.Member.Revoked.IsZero() || r.Member.Name != "bad" {
		t.Fatalf("%+v %v", r, err)
	}
	for _, c := range own {
		if k := at(t, m, c.ID).Mark; k == nil || k.Reason != event.ReasonCompromised {
			t.Errorf("%s: %+v", c.ID, k)
		}
	}
	if at(t, m, foreign.ID).Mark != nil {
		t.Error("another group's certificate is marked")
	}
	groups, err := m.Groups(t.Context())
	if err != nil || groups[0].Members != 1 || len(groups[0].Exposed) != 1 || groups[0].Exposed[0].ID != bad.ID {
		t.Fatalf("%+v %v", groups[0], err)
	}
	next := newKey(t)
	keys := []*seal.PrivateKey{next, f.group}
	if err := m.RotateGroup(t.Context(), DefaultGroup, keys, event.ReasonCompromised); err != nil {
		t.Fatal(err)
	}
	good.wantKeys(t, m, next)
	bad.wantKeys(t, m, f.group)
	if n, err := m.Grant(t.Context(), DefaultGroup, keys); err != nil || n != 0 {
		t.Error("the revoked member is granted something:", n, err)
	}
	if groups, err := m.Groups(t.Context()); err != nil || len(groups[0].Exposed) != 0 {
		t.Errorf("%+v %v", groups[0], err)
	}
	// Again: what it cannot open is not marked.
	if r, err := m.RevokeMember(t.Context(), bad.ID); err != nil || r.Marked != 0 || r.Exposed {
		t.Errorf("%+v %v", r, err)
	}
	var none *NoMemberError
	if _, err := m.RevokeMember(t.Context(), event.NewID()); !errors.As(err, &none) {
		t.Error(err)
	}
}

// TestRevokedUsersAreTold: members' and managers', by who runs and by who
// revokes, but none that somebody else has by right.
func TestRevokedUsersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		mint := func(secret []byte) (Credentials, error) { return cashier{string(secret)}, nil }
		if err := m.SetBusInfo(t.Context(), usersInfo, []byte("seed")); err != nil {
			t.Fatal(err)
		}
		byRun, byHand := new(told), new(told)
		m = f.configured(t, func(c *Config) { c.Mint, c.Revoked = mint, byHand.tell })
		defer run(t, f.configured(t, func(c *Config) { c.Revoked = byRun.tell }))()
		synctest.Wait()
		if users, n := byRun.last(); n != 1 || len(users) != 0 {
			t.Fatal(users, n)
		}
		join := func(user string) *guest {
			g := f.guest(t, newToken(t, m))
			g.User = user
			g.ask(t)
			if _, err := m.Grant(t.Context(), DefaultGroup, []*seal.PrivateKey{f.group}); err != nil {
				t.Fatal(err)
			}
			return g
		}
		want := func(users ...string) {
			t.Helper()
			synctest.Wait()
			for _, x := range []*told{byRun, byHand} {
				if got, _ := x.last(); !slices.Equal(got, users) {
					t.Fatalf("told %v, want %v", got, users)
				}
			}
		}
		victim, thief, second := join("UV"), join("UV"), join("US")
		other := f.other(t, m, "other", "UM")
		borrower := join("UM")
		for _, g := range []*guest{thief, second, borrower} {
			if _, err := m.RevokeMember(t.Context(), g.ID); err != nil {
				t.Fatal(err)
			}
		}
		want("US")
		if _, err := m.RevokeMember(t.Context(), victim.ID); err != nil {
			t.Fatal(err)
		}
		want("US", "UV")
		if err := m.RevokeSigner(t.Context(), other.Signing.Public().ID().String()); err != nil {
			t.Fatal(err)
		}
		want("UM", "US", "UV")
		_, n := byRun.last()
		time.Sleep(time.Hour)
		if _, again := byRun.last(); again != n {
			t.Error("told again what has not changed")
		}
	})
}

func TestMembersAndGroups(t *testing.T) {
	f, m := newJoinable(t)
	a, b := f.joined(t, m, "lb1"), f.joined(t, m, "lb1")
	members, err := m.Members(t.Context(), DefaultGroup)
	if err != nil || len(members) != 2 {
		t.Fatal(members, err)
	}
	for _, prefix := range []string{a.ID, a.ID[:6]} {
		if h, err := m.FindMember(t.Context(), prefix); err != nil || h.ID != a.ID {
			t.Errorf("%s: %v", prefix, err)
		}
	}
	var ambiguous *AmbiguousError
	if _, err := m.FindMember(t.Context(), "lb1"); !errors.As(err, &ambiguous) || len(ambiguous.IDs) != 2 {
		t.Error(err)
	}
	var none *NoMemberError
	if _, err := m.FindMember(t.Context(), ""); !errors.As(err, &none) {
		t.Error(err)
	}
	c := make1(t, m, "a.example")
	var invalid *InvalidError
	err = m.RemoveGroup(t.Context(), DefaultGroup)
	for _, id := range []string{a.ID, b.ID, c.ID} {
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), id) {
			t.Errorf("%s is not named: %v", id, err)
		}
	}
	if err := m.Remove(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{a.ID, b.ID} {
		if _, err := m.RevokeMember(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if h, err := m.FindMember(t.Context(), a.ID); err != nil || h.Revoked.IsZero() {
		t.Error(err)
	}
	if _, err := m.FindMember(t.Context(), a.ID[:6]); !errors.As(err, &none) {
		t.Error(err)
	}
	if err := m.RemoveGroup(t.Context(), DefaultGroup); err != nil {
		t.Fatal(err)
	}
	if groups, err := m.Groups(t.Context()); err != nil || len(groups) != 0 {
		t.Error(groups, err)
	}
	if _, err := m.Make(t.Context(), Request{Names: []string{"b.example"}}); !errors.As(err, &invalid) {
		t.Error("a certificate in a removed group:", err)
	}
	next := newKey(t)
	for range 2 {
		if err := m.AddGroup(t.Context(), DefaultGroup, next.Public()); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.AddGroup(t.Context(), DefaultGroup, f.group.Public()); !errors.As(err, &invalid) {
		t.Error("another key:", err)
	}
	f.wantSealed(t, m, make1(t, m, "b.example").ID, next)
}
