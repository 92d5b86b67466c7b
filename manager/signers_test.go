// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// other makes another manager's identity known.
func (f *fleet) other(t testing.TB, m *Manager, name, user string) *seal.Identity {
	t.Helper()
	key, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddSigner(context.Background(), name, key.Public(), user); err != nil {
		t.Fatal(err)
	}
	return &seal.Identity{Signing: key, Sealing: f.identity.Sealing}
}

// as is a manager with another identity, that knows no other managers but the
// first.
func (f *fleet) as(t testing.TB, id *seal.Identity, first ...*seal.VerifyKey) *Manager {
	t.Helper()
	return f.configured(t, func(c *Config) {
		c.Identity, c.Managers = id, append(first, id.Signing.Public())
	})
}

// wantReadable fails unless all that managers have put on the bus is believed by
// who trusts the newest set, and by who trusts the first and follows from there.
func (f *fleet) wantReadable(t testing.TB, first, newest []*seal.VerifyKey) {
	t.Helper()
	ctx := context.Background()
	entry, err := f.log.Get(ctx, event.ManagersKey)
	if err != nil {
		t.Fatal(err)
	}
	for what, trusted := range map[string][]*seal.VerifyKey{"the first set": first, "the newest set": newest} {
		set, err := event.OpenManagers(trusted, 0, DefaultTenant, entry.Data)
		if err != nil {
			t.Fatalf("from %s: %v", what, err)
		}
		for _, scope := range signedScopes {
			for u, err := range f.log.Follow(ctx, scope, bus.Position{}) {
				if err != nil {
					t.Fatal(err)
				}
				if u.CaughtUp {
					break
				}
				e, err := event.Open(set.Trusted(), DefaultTenant, u.Key, u.Data)
				if err != nil {
					t.Errorf("from %s: %s: %v", what, u.Key, err)
					continue
				}
				if s, ok := e.Body.(*event.State); ok && len(s.Current) > 0 {
					if _, err := event.Open(set.Trusted(), DefaultTenant, event.CertificateKey(s.Spec.Group, s.ID), s.Current); err != nil {
						t.Errorf("from %s: the event in %s: %v", what, u.Key, err)
					}
				}
			}
		}
	}
}

func TestInitMakesTheFirstSet(t *testing.T) {
	f, _ := newFleet(t)
	m := f.manager(t, "")
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	set, err := m.Signers(t.Context())
	if err != nil || set.Serial != 1 || len(set.Keys) != 1 || set.Keys[0].Name != hostName() ||
		string(set.Keys[0].Key) != string(f.identity.Signing.Public().Bytes()) {
		t.Errorf("%+v %v", set, err)
	}
}

// TestALogOfAnEarlierVersion has no list of managers.
func TestALogOfAnEarlierVersion(t *testing.T) {
	f, _ := newFleet(t)
	inner := f.log
	f.log = &forgetful{Log: inner, key: event.ManagersKey}
	friend, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	m := f.configured(t, func(c *Config) {
		c.Managers = []*seal.VerifyKey{f.identity.Signing.Public(), friend.Public()}
		c.Name, c.User = "first", "UABC"
	})
	c := make1(t, m, "a.example") // it works as it did
	if _, err := m.Signers(t.Context()); err == nil {
		t.Fatal("there is a list")
	}
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	set, err := m.Signers(t.Context())
	if err != nil || len(set.Keys) != 2 || set.Keys[0].Name != "first" || set.Keys[0].User != "UABC" || set.Keys[1].Name != friend.Public().ID().String() {
		t.Fatalf("%+v %v", set, err)
	}
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
		t.Error(err)
	}
}

// forgetful is a bus that does not have what stood under a key before.
type forgetful struct {
	bus.Log
	key string

	mu    sync.Mutex
	wrote bool // guarded by mu
}

func (l *forgetful) Get(ctx context.Context, key string) (bus.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key == l.key && !l.wrote {
		return bus.Entry{}, bus.ErrNotFound
	}
	return l.Log.Get(ctx, key)
}

func (l *forgetful) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key == l.key && !l.wrote {
		l.wrote = true
		old, err := l.Log.Get(ctx, key)
		if err != nil {
			return bus.Position{}, err
		}
		after = old.Position
	}
	return l.Log.Append(ctx, key, after, data)
}

// TestManagersComeAndGo while one runs and certificates are renewed.
func TestManagersComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		first := f.identity.Signing.Public()
		defer run(t, f.manager(t, ""))()
		hourly := func(by *Manager, name string) *Managed {
			t.Helper()
			c, err := by.Make(t.Context(), Request{Names: []string{name}, Lifetime: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		b := f.other(t, m, "b", "")
		mb := f.as(t, b, first)
		stopB := run(t, mb)
		list := []*Managed{hourly(m, "a.example"), hourly(mb, "b.example"), make1(t, mb, "c.example"), make1(t, mb, "d.example")}
		g := f.joined(t, mb, "lb1")
		if err := mb.Remove(t.Context(), list[3].ID); err != nil {
			t.Fatal(err)
		}
		newToken(t, mb)
		time.Sleep(3 * time.Hour)
		f.wantReadable(t, []*seal.VerifyKey{first}, []*seal.VerifyKey{first, b.Signing.Public()})

		// A key is rotated: a new one comes, the old one goes. The program that has
		// the old one runs on.
		d := f.other(t, m, "b2", "")
		if err := m.RevokeSigner(t.Context(), "b"); err != nil {
			t.Fatal(err)
		}
		newest := []*seal.VerifyKey{first, d.Signing.Public()}
		f.wantReadable(t, []*seal.VerifyKey{first}, newest)
		synctest.Wait()
		if _, err := mb.Renew(t.Context(), list[0].ID, event.ReasonRekey); !errors.Is(err, ErrNotManager) {
			t.Errorf("a revoked manager renews: %v", err)
		}
		time.Sleep(3 * time.Hour)
		stopB()
		md := f.as(t, d, first)
		defer run(t, md)()
		time.Sleep(3 * time.Hour)
		f.wantReadable(t, []*seal.VerifyKey{first}, newest)
		for _, c := range list[:3] {
			if now := at(t, md, c.ID); now.leftAt(time.Now()) <= 0 {
				t.Errorf("%s has ended", c.ID)
			}
			f.wantSameCopy(t, md, c.ID)
		}
		g.wantKeys(t, md, f.group)

		// The first one goes.
		if err := md.RevokeSigner(t.Context(), first.ID().String()[:8]); err != nil {
			t.Fatal(err)
		}
		f.wantReadable(t, []*seal.VerifyKey{first}, []*seal.VerifyKey{d.Signing.Public()})
		set, err := md.Signers(t.Context())
		if err != nil || set.Serial != 5 || len(set.Keys) != 1 {
			t.Errorf("%+v %v", set, err)
		}
	})
}

// wantSameCopy fails unless what stands for replicas is what the state says, to
// the byte.
func (f *fleet) wantSameCopy(t testing.TB, m *Manager, id string) {
	t.Helper()
	c := at(t.(*testing.T), m, id)
	entry, err := f.log.Get(context.Background(), event.CertificateKey(c.Spec.Group, id))
	if err != nil || string(entry.Data) != string(c.Current) {
		t.Errorf("%s: the copy is not what the state says: %v", id, err)
	}
}

// TestARevokedManagerIsBelievedByNobody, whatever it writes afterwards.
func TestARevokedManagerIsBelievedByNobody(t *testing.T) {
	f, m := newJoinable(t)
	b := f.other(t, m, "b", "")
	mb := f.as(t, b, f.identity.Signing.Public())
	c := make1(t, mb, "a.example")
	if err := m.RevokeSigner(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	forged := at(t, m, c.ID)
	forged.Spec.Names = []string{"evil.example"}
	data, err := event.Sign(b.Signing, DefaultTenant, time.Now(), &forged.State)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.log.Append(t.Context(), event.StateKey(c.ID), forged.Position, data); err != nil {
		t.Fatal(err)
	}
	// Not even by who signs anew what it wrote in time.
	if err := m.RevokeSigner(t.Context(), b.Signing.Public().ID().String()); err != nil {
		t.Fatal(err)
	}
	for what, reader := range map[string]*Manager{"who revoked it": m, "a new one": f.manager(t, "")} {
		if _, err := reader.Get(t.Context(), c.ID); !errors.Is(err, seal.ErrUnknownSigner) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var invalid *InvalidError
	if err := m.AddSigner(t.Context(), "b", b.Signing.Public(), ""); !errors.As(err, &invalid) {
		t.Errorf("it comes back: %v", err)
	}
	// It cannot make a list of its own, either.
	set := &event.ManagerSet{Serial: 9, Keys: []event.ManagerKey{{Name: "b", Key: b.Signing.Public().Bytes()}}}
	entry, err := f.log.Get(t.Context(), event.ManagersKey)
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Trusted(DefaultTenant, entry.Data)
	if err != nil {
		t.Fatal(err)
	}
	chain := e.Body.(*event.ManagerChain)
	if err := chain.Add(b.Signing, DefaultTenant, time.Now(), set); err != nil {
		t.Fatal(err)
	}
	if data, err = event.Sign(b.Signing, DefaultTenant, time.Now(), chain); err != nil {
		t.Fatal(err)
	}
	if _, err := f.log.Append(t.Context(), event.ManagersKey, entry.Position, data); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Get(t.Context(), c.ID); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Error(err)
	}
	if _, err := m.Signers(t.Context()); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Error(err)
	}
}

// TestARevocationIsCompleted: what the other wrote between being signed anew and
// the set that leaves it out is made up for, by the same call or by a later one.
func TestARevocationIsCompleted(t *testing.T) {
	for _, killed := range []bool{false, true} {
		f, m := newJoinable(t)
		b := f.other(t, m, "b", "")
		mb := f.as(t, b, f.identity.Signing.Public())
		c := make1(t, mb, "a.example")
		inner := f.log
		ctx, kill := context.WithCancel(t.Context())
		defer kill()
		renew := func() {
			if _, err := mb.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
				t.Error(err)
			}
		}
		f.log = &beforeAppend{Log: inner, key: event.ManagersKey, do: renew}
		if killed { // it writes after the states are signed anew, and before it is seen where the log ends
			f.log = &beforeFollow{Log: inner, scope: event.MemberScope, do: renew}
		}
		revoking := f.configured(t, func(c *Config) {
			c.Progress = func(_, what string) {
				if killed && what == "manager b is revoked" {
					kill()
				}
			}
		})
		if err := revoking.RevokeSigner(ctx, "b"); killed != (err != nil) {
			t.Fatal(err)
		}
		f.log = inner
		if killed {
			if _, err := f.manager(t, "").Get(t.Context(), c.ID); !errors.Is(err, seal.ErrUnknownSigner) {
				t.Fatalf("there is nothing to complete: %v", err)
			}
			f.other(t, m, "another", "") // completes it first
		}
		if got := at(t, m, c.ID); got.Generation != 2 {
			t.Errorf("generation %d", got.Generation)
		}
		f.wantSameCopy(t, m, c.ID)
	}
}

// beforeFollow is a bus on which something happens just before a scope is first
// followed.
type beforeFollow struct {
	bus.Log
	scope string
	once  sync.Once
	do    func()
}

func (l *beforeFollow) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	if scope == l.scope {
		l.once.Do(l.do)
	}
	return l.Log.Follow(ctx, scope, from)
}

func TestUnfitRevocations(t *testing.T) {
	f, m := newJoinable(t)
	own := f.identity.Signing.Public().ID().String()
	var invalid *InvalidError
	for _, who := range []string{own, own[:4], "nobody", ""} {
		if err := m.RevokeSigner(t.Context(), who); !errors.As(err, &invalid) {
			t.Errorf("%q: %v", who, err)
		}
	}
	f.other(t, m, "b", "")
	f.other(t, m, "b", "")
	var ambiguous *AmbiguousError
	if err := m.RevokeSigner(t.Context(), "b"); !errors.As(err, &ambiguous) || len(ambiguous.IDs) != 2 {
		t.Error(err)
	}
	for range event.MaxKeys - 3 {
		f.other(t, m, "c", "")
	}
	key, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.AddSigner(t.Context(), "c", key.Public(), ""); !errors.As(err, &invalid) {
		t.Errorf("one too many: %v", err)
	}
	if err := m.AddSigner(t.Context(), "a host", key.Public(), ""); !errors.As(err, &invalid) {
		t.Errorf("a bad name: %v", err)
	}
	// What nobody who ever was a manager signed is left as it is.
	stranger, err := event.Sign(key, DefaultTenant, time.Now(), &event.State{ID: event.NewID(), Spec: make1(t, m, "a.example").Spec})
	if err != nil {
		t.Fatal(err)
	}
	e, err := event.Trusted(DefaultTenant, stranger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.log.Append(t.Context(), e.Key, bus.Position{}, stranger); err != nil {
		t.Fatal(err)
	}
	if err := m.RevokeSigner(t.Context(), ambiguous.IDs[0]); err != nil {
		t.Fatal(err)
	}
	if entry, err := f.log.Get(t.Context(), e.Key); err != nil || !slices.Equal(entry.Data, stranger) {
		t.Error("it was changed", err)
	}
}

// TestWhoIsNoManagerWritesNothing and is told why.
func TestWhoIsNoManagerWritesNothing(t *testing.T) {
	f, _ := newJoinable(t)
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	for what, m := range map[string]*Manager{
		"that trusts the managers": f.as(t, id, f.identity.Signing.Public()),
		"that trusts itself":       f.as(t, id),
	} {
		for _, err := range []error{
			m.Init(t.Context()), m.AddGroup(t.Context(), "web", f.group.Public()), m.SetBusInfo(t.Context(), &event.BusInfo{URLs: []string{"x://"}}, nil),
		} {
			if err == nil {
				t.Errorf("a stranger %s writes", what)
			}
		}
		if _, err := m.mayWrite(t.Context()); !errors.Is(err, ErrNotManager) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestForgedEntriesDoNotFloodTheBus: a signer that is none is looked for once.
func TestForgedEntriesDoNotFloodTheBus(t *testing.T) {
	f, _ := newJoinable(t)
	key, err := seal.GenerateSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	spec := event.Spec{Group: DefaultGroup, Names: []string{"a.example"}, Issuer: "internal"}
	for range 100 {
		s := &event.State{ID: event.NewID(), Spec: spec}
		data, err := event.Sign(key, DefaultTenant, time.Now(), s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.log.Append(t.Context(), event.StateKey(s.ID), bus.Position{}, data); err != nil {
			t.Fatal(err)
		}
	}
	log := &gets{Log: f.log}
	m, err := New(Config{Log: log, Identity: f.identity, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.List(t.Context()); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Error(err)
	}
	if log.n > 5 {
		t.Errorf("%d reads", log.n)
	}
}

// gets is a bus that counts reads.
type gets struct {
	bus.Log
	n int
}

func (l *gets) Get(ctx context.Context, key string) (bus.Entry, error) {
	l.n++
	return l.Log.Get(ctx, key)
}
