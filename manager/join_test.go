// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// busInfo says how the bus of the tests is reached.
var busInfo = &event.BusInfo{URLs: []string{"nowhere://bus.example.com:4222"}, Roots: [][]byte{[]byte("root")}}

// newJoinable is newFleet with what join tokens take.
func newJoinable(t testing.TB) (*fleet, *Manager) {
	t.Helper()
	f, m := newFleet(t)
	if err := m.SetBusInfo(context.Background(), busInfo, nil); err != nil {
		t.Fatal(err)
	}
	return f, m
}

// configured is a manager of the fleet with more than the least of a Config.
func (f *fleet) configured(t testing.TB, set func(*Config)) *Manager {
	t.Helper()
	c := Config{Log: f.log, Identity: f.identity, Logger: slog.New(slog.DiscardHandler)}
	set(&c)
	m, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// holder is a manager that holds the keys of the default group.
func (f *fleet) holder(t testing.TB, keys ...*seal.PrivateKey) *Manager {
	if keys == nil {
		keys = []*seal.PrivateKey{f.group}
	}
	return f.configured(t, func(c *Config) { c.Keys = holding(keys...) })
}

func holding(keys ...*seal.PrivateKey) func(string) ([]*seal.PrivateKey, error) {
	return func(group string) ([]*seal.PrivateKey, error) {
		if group != DefaultGroup {
			return nil, nil
		}
		return keys, nil
	}
}

func newKey(t testing.TB) *seal.PrivateKey {
	t.Helper()
	k, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newToken(t testing.TB, m *Manager) *event.Token {
	t.Helper()
	token, err := m.NewToken(context.Background(), DefaultGroup, 0)
	if err != nil {
		t.Fatal(err)
	}
	// What the host gets is the text.
	if token, err = event.ParseToken(token.Encode()); err != nil {
		t.Fatal(err)
	}
	return token
}

// A guest is a host that joins.
type guest struct {
	f     *fleet
	token *event.Token
	own   *seal.Identity
	event.JoinRequest
}

func (f *fleet) guest(t testing.TB, token *event.Token) *guest {
	t.Helper()
	own, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return &guest{f: f, token: token, own: own, JoinRequest: event.JoinRequest{
		ID: token.ID, Group: token.Group, Name: "lb1",
		SealKey: own.Sealing[0].Public().Bytes(), SignKey: own.Signing.Public().Bytes(),
	}}
}

// signed is the request, signed by the token or by another key.
func (g *guest) signed(t testing.TB, by *seal.SigningKey) []byte {
	t.Helper()
	if by == nil {
		var err error
		if by, err = g.token.SigningKey(); err != nil {
			t.Fatal(err)
		}
	}
	data, err := event.Sign(by, DefaultTenant, time.Now(), &g.JoinRequest)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (g *guest) ask(t testing.TB) {
	t.Helper()
	if _, err := g.f.log.Append(context.Background(), event.JoinKey(g.ID), bus.Position{}, g.signed(t, nil)); err != nil {
		t.Fatal(err)
	}
}

// joined returns a guest who is a member with the group's keys.
func (f *fleet) joined(t testing.TB, m *Manager, name string, keys ...*seal.PrivateKey) *guest {
	t.Helper()
	if keys == nil {
		keys = []*seal.PrivateKey{f.group}
	}
	g := f.guest(t, newToken(t, m))
	g.Name = name
	g.ask(t)
	if n, err := m.Grant(context.Background(), DefaultGroup, keys); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	return g
}

// member returns what the bus says of the guest; nil if nothing.
func (g *guest) member(t testing.TB, m *Manager) *Member {
	t.Helper()
	h, err := m.member(context.Background(), g.Group, g.ID)
	var none *NoMemberError
	if errors.As(err, &none) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// wantKeys fails unless exactly these are granted, in this order, and the guest
// can open them.
func (g *guest) wantKeys(t testing.TB, m *Manager, want ...*seal.PrivateKey) {
	t.Helper()
	h := g.member(t, m)
	if h == nil {
		t.Fatal("no member")
	}
	got, err := h.Open(DefaultTenant, g.own.Sealing)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(got, want, (*seal.PrivateKey).Equal) {
		t.Fatalf("granted %v, want %d keys", h.KeyIDs, len(want))
	}
}

func TestJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		seen := &appends{Log: f.log, n: make(map[string]int)}
		f.log = seen
		for range 2 {
			defer run(t, f.holder(t))()
		}
		g := f.guest(t, newToken(t, m))
		synctest.Wait()
		g.ask(t)
		synctest.Wait()
		g.wantKeys(t, m, f.group)
		h := g.member(t, m)
		if h.Name != "lb1" || h.Joined.IsZero() || !h.Revoked.IsZero() || string(h.SignKey) != string(g.SignKey) {
			t.Errorf("%+v", h.Member)
		}
		token, _, err := get[*event.JoinToken](t.Context(), m, event.TokenKey(g.ID))
		if err != nil || len(token.Request) != sha256.Size || token.Used.IsZero() {
			t.Errorf("%+v %v", token, err)
		}
		// The token was used once, and the member made once, keys and all.
		if n, k := seen.count(event.TokenKey(g.ID)), seen.count(event.MemberKey(g.Group, g.ID)); n != 1 || k != 1 {
			t.Errorf("the token was used %d times, the member written %d times", n, k)
		}
		groups, err := m.Groups(t.Context())
		if err != nil || len(groups) != 1 || groups[0].Members != 1 || groups[0].Waiting != 0 || groups[0].Key != f.group.Public().ID() {
			t.Errorf("%+v %v", groups, err)
		}
	})
}

// TestJoiningWhereOneHoldsTheKeys: the manager that admits has none.
func TestJoiningWhereOneHoldsTheKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		defer run(t, f.manager(t, ""))()
		g := f.guest(t, newToken(t, m))
		g.ask(t)
		synctest.Wait()
		g.wantKeys(t, m)
		if groups, err := m.Groups(t.Context()); err != nil || groups[0].Waiting != 1 {
			t.Errorf("%+v %v", groups, err)
		}
		var brought atomic.Bool
		defer run(t, f.configured(t, func(c *Config) {
			c.Keys = func(string) ([]*seal.PrivateKey, error) {
				if !brought.Load() {
					return nil, nil
				}
				return []*seal.PrivateKey{f.group}, nil
			}
		}))()
		time.Sleep(time.Hour)
		g.wantKeys(t, m)
		brought.Store(true)
		time.Sleep(tendEvery + time.Second)
		g.wantKeys(t, m, f.group)
	})
}

// TestGrant is what a command line does where nobody runs.
func TestGrant(t *testing.T) {
	f, m := newJoinable(t)
	first, second := f.guest(t, newToken(t, m)), f.guest(t, newToken(t, m))
	first.ask(t)
	if _, err := m.Grant(t.Context(), DefaultGroup, []*seal.PrivateKey{newKey(t)}); err == nil || !strings.Contains(err.Error(), "is not among those given") {
		t.Fatalf("a key that is not the group's: %v", err)
	}
	// One has been admitted by a manager without keys.
	if err := m.tendHosts(t.Context()); err != nil {
		t.Fatal(err)
	}
	first.wantKeys(t, m)
	second.ask(t)
	n, err := m.Grant(t.Context(), DefaultGroup, []*seal.PrivateKey{f.group})
	if err != nil || n != 2 {
		t.Fatal(n, err)
	}
	first.wantKeys(t, m, f.group)
	second.wantKeys(t, m, f.group)
	if n, err := m.Grant(t.Context(), DefaultGroup, []*seal.PrivateKey{f.group}); err != nil || n != 0 {
		t.Error("again:", n, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	f, m := newJoinable(t)
	if err := m.AddGroup(t.Context(), "other", f.group.Public()); err != nil {
		t.Fatal(err)
	}
	stranger, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	admit := func(key string, data []byte) error {
		_, err := m.admit(t.Context(), bus.Entry{Key: key, Data: data}, holding(f.group))
		return err
	}
	for what, try := range map[string]func(g *guest) (key string, data []byte){
		"by another key":   func(g *guest) (string, []byte) { return event.JoinKey(g.ID), g.signed(t, stranger) },
		"by a manager":     func(g *guest) (string, []byte) { return event.JoinKey(g.ID), g.signed(t, f.identity.Signing) },
		"to another group": func(g *guest) (string, []byte) { g.Group = "other"; return event.JoinKey(g.ID), g.signed(t, nil) },
		"by an unknown token": func(*guest) (string, []byte) {
			g := f.guest(t, event.NewToken())
			g.Group = DefaultGroup
			return event.JoinKey(g.ID), g.signed(t, nil)
		},
		"by a token for another": func(g *guest) (string, []byte) {
			by, err := f.guest(t, newToken(t, m)).token.SigningKey()
			if err != nil {
				t.Fatal(err)
			}
			return event.JoinKey(g.ID), g.signed(t, by)
		},
		"as another id": func(g *guest) (string, []byte) { return event.JoinKey(newToken(t, m).ID), g.signed(t, nil) },
		"with junk":     func(g *guest) (string, []byte) { return event.JoinKey(g.ID), []byte("junk") },
		"with a member": func(g *guest) (string, []byte) {
			by, err := g.token.SigningKey()
			if err != nil {
				t.Fatal(err)
			}
			data, err := event.Sign(by, DefaultTenant, time.Now(), &event.Member{JoinRequest: g.JoinRequest})
			if err != nil {
				t.Fatal(err)
			}
			return event.JoinKey(g.ID), data
		},
	} {
		g := f.guest(t, newToken(t, m))
		var refused *refusedError
		if err := admit(try(g)); !errors.As(err, &refused) {
			t.Errorf("%s: %v", what, err)
		}
		g.Group = DefaultGroup
		if g.member(t, m) != nil {
			t.Errorf("%s: a member", what)
		}
		if token, _, err := get[*event.JoinToken](t.Context(), m, event.TokenKey(g.ID)); err != nil || len(token.Request) > 0 {
			t.Errorf("%s: the token is used up: %v", what, err)
		}
	}
}

func TestATokenIsGoodOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		token := newToken(t, m)
		g, thief := f.guest(t, token), f.guest(t, token)
		g.ask(t)
		if _, err := m.Grant(t.Context(), DefaultGroup, []*seal.PrivateKey{f.group}); err != nil {
			t.Fatal(err)
		}
		_, err := m.admit(t.Context(), bus.Entry{Key: event.JoinKey(g.ID), Data: thief.signed(t, nil)}, holding(f.group))
		var refused *refusedError
		if !errors.As(err, &refused) {
			t.Errorf("used twice: %v", err)
		}
		g.wantKeys(t, m, f.group)

		late := f.guest(t, newToken(t, m))
		time.Sleep(DefaultTokenLifetime + time.Second)
		late.ask(t)
		if n, err := m.Grant(t.Context(), DefaultGroup, []*seal.PrivateKey{f.group}); err != nil || n != 0 || late.member(t, m) != nil {
			t.Errorf("an expired token: %d, %v", n, err)
		}
	})
}

// TestAUsedTokenWithoutItsMember: the manager died between the two appends, and
// the token has expired since.
func TestAUsedTokenWithoutItsMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		g := f.guest(t, newToken(t, m))
		g.ask(t)
		inner := f.log
		f.log = noMembers{inner}
		dying := f.holder(t)
		if err := dying.tendHosts(t.Context()); err == nil || g.member(t, m) != nil {
			t.Fatal("it did not die", err)
		}
		f.log = inner
		if token, _, err := get[*event.JoinToken](t.Context(), m, event.TokenKey(g.ID)); err != nil || len(token.Request) == 0 {
			t.Fatal("the token is not used", err)
		}
		time.Sleep(time.Hour)
		defer run(t, f.holder(t))()
		synctest.Wait()
		g.wantKeys(t, m, f.group)
	})
}

// noMembers is the bus of a manager that dies before it makes a member.
type noMembers struct{ bus.Log }

func (l noMembers) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if bus.InScope(key, event.MemberScope) {
		return bus.Position{}, errors.New("crashed")
	}
	return l.Log.Append(ctx, key, after, data)
}

// TestARefusedRequestIsLoggedOnce however long a manager runs.
func TestARefusedRequestIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		log := new(lines)
		defer run(t, f.configured(t, func(c *Config) { c.Keys, c.Logger = holding(f.group), slog.New(slog.NewTextHandler(log, nil)) }))()
		g := f.guest(t, newToken(t, m))
		time.Sleep(time.Hour)
		g.ask(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := log.count("a request to join is refused"); n != 1 {
			t.Errorf("%d lines:\n%s", n, log)
		}
	})
}

func TestNewToken(t *testing.T) {
	f, m := newFleet(t)
	var invalid *InvalidError
	if _, err := m.NewToken(t.Context(), DefaultGroup, 0); !errors.As(err, &invalid) || !strings.Contains(err.Error(), "reach the bus") {
		t.Errorf("without an address: %v", err)
	}
	if err := m.SetBusInfo(t.Context(), busInfo, nil); err != nil {
		t.Fatal(err)
	}
	for _, lifetime := range []time.Duration{-1, time.Second, 25 * time.Hour} {
		if _, err := m.NewToken(t.Context(), DefaultGroup, lifetime); !errors.As(err, &invalid) {
			t.Errorf("%v: %v", lifetime, err)
		}
	}
	if _, err := m.NewToken(t.Context(), "nobody", 0); !errors.As(err, &invalid) {
		t.Errorf("no such group: %v", err)
	}
	token := newToken(t, m)
	trusted, err := token.Trusted()
	if err != nil || len(trusted) != 1 || !trusted[0].Equal(f.identity.Signing.Public()) || token.Serial != 1 ||
		token.Tenant != DefaultTenant || token.Grant != "" || !slices.Equal(token.URLs, busInfo.URLs) || string(token.Roots[0]) != "root" {
		t.Errorf("%d keys, serial %d, %v, %v", len(trusted), token.Serial, token.URLs, err)
	}
	if left := time.Until(token.Expires); left < DefaultTokenLifetime-time.Minute || left > DefaultTokenLifetime {
		t.Errorf("it expires in %v", left)
	}
}

func TestSetBusInfo(t *testing.T) {
	f, m := newFleet(t)
	at := func() bus.Position {
		t.Helper()
		entry, err := f.log.Get(t.Context(), event.BusInfoKey)
		if err != nil {
			t.Fatal(err)
		}
		return entry.Position
	}
	set := func(info *event.BusInfo, secret string) {
		t.Helper()
		if err := m.SetBusInfo(t.Context(), info, []byte(secret)); err != nil {
			t.Fatal(err)
		}
	}
	set(busInfo, "secret")
	first := at()
	set(busInfo, "secret")
	if at() != first {
		t.Error("the same was written again")
	}
	set(busInfo, "another")
	second := at()
	set(&event.BusInfo{URLs: []string{"nowhere://elsewhere"}, Roots: busInfo.Roots}, "another")
	if first == second || at() == second {
		t.Error("a change was not written")
	}
	info, _, err := get[*event.BusInfo](t.Context(), m, event.BusInfoKey)
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := info.Open(DefaultTenant, f.identity.Sealing); err != nil || string(secret) != "another" {
		t.Error(err)
	}
	if busInfo.Sealed != nil {
		t.Error("the caller's was changed")
	}
}

// A cashier makes credentials that say what they are for, from a secret.
type cashier struct{ secret string }

func (c cashier) Join(tenant, group, id, user string, _ time.Time) (string, error) {
	return fmt.Sprint(c.secret, " join ", tenant, " ", group, " ", id, " ", user), nil
}

func (c cashier) Replica(tenant, group, id, user string) (string, error) {
	return fmt.Sprint(c.secret, " replica ", tenant, " ", group, " ", id, " ", user), nil
}

func (c cashier) Manager(tenant, name, user string) (string, error) {
	return fmt.Sprint(c.secret, " manager ", tenant, " ", name, " ", user), nil
}

// usersDriver is an engine that knows users: the length of their secret.
type usersDriver struct{ bus.Driver }

func (usersDriver) User(secret []byte) (string, error) { return fmt.Sprintf("U%d", len(secret)), nil }

var usersInfo = &event.BusInfo{URLs: []string{"users://bus.example.com"}}

func TestCredentials(t *testing.T) {
	f, m := newFleet(t)
	mint := func(secret []byte) (Credentials, error) { return cashier{string(secret)}, nil }
	teller := f.configured(t, func(c *Config) { c.Mint, c.Keys = mint, holding(f.group) })
	if err := m.SetBusInfo(t.Context(), usersInfo, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := teller.NewToken(t.Context(), DefaultGroup, 0); !errors.Is(err, errNoCredentials) {
		t.Errorf("without the secret: %v", err)
	}
	if err := m.SetBusInfo(t.Context(), usersInfo, []byte("seed")); err != nil {
		t.Fatal(err)
	}
	if _, err := m.NewToken(t.Context(), DefaultGroup, 0); !errors.Is(err, errNoCredentials) {
		t.Errorf("by a manager that cannot: %v", err)
	}
	token := newToken(t, teller)
	if want := "seed join default default " + token.ID + " U32"; token.Grant != want {
		t.Errorf("%q, want %q", token.Grant, want)
	}
	g := f.guest(t, token)
	g.User = "UABC"
	g.ask(t)
	// Who cannot make credentials leaves the request to who can.
	if err := f.holder(t).tendHosts(t.Context()); !errors.Is(err, errNoCredentials) || g.member(t, m) != nil {
		t.Errorf("admitted without credentials: %v", err)
	}
	if err := teller.tendHosts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := g.member(t, m).Grant, "seed replica default default "+token.ID+" UABC"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
