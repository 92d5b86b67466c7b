// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

func makeMany(t testing.TB, m *Manager, n int) []*Managed {
	t.Helper()
	var list []*Managed
	for i := range n {
		list = append(list, make1(t, m, fmt.Sprintf("h%d.example", i)))
	}
	return list
}

// wantSealed fails unless what stands for replicas opens with key, and the
// state says the same.
func (f *fleet) wantSealed(t testing.TB, m *Manager, id string, key *seal.PrivateKey) {
	t.Helper()
	c, err := m.Get(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	copied := f.copyOf(t, id).(*event.Certificate)
	if copied.Version != c.Version {
		t.Errorf("%s: %s is copied of %s", id, copied.Version, c.Version)
	}
	if _, err := copied.OpenKey(DefaultTenant, []*seal.PrivateKey{key}); err != nil {
		t.Errorf("%s: %v", id, err)
	}
}

// wantRotated fails unless the group has next, and old is retired.
func wantRotated(t testing.TB, m *Manager, next, old *seal.PrivateKey) {
	t.Helper()
	groups, err := m.Groups(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		if g.Name != DefaultGroup {
			continue
		}
		if g.Key != next.Public().ID() || len(g.Retiring) > 0 || !isFormer(g.Retired, old.Public().ID()) {
			t.Errorf("key %s, retiring %v, retired %v", g.Key, g.Retiring, g.Retired)
		}
	}
}

func TestRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		next := newKey(t)
		list := makeMany(t, m, 50)
		guests := []*guest{f.joined(t, m, "lb1"), f.joined(t, m, "lb2")}
		for range 2 {
			defer run(t, f.holder(t, next, f.group))()
		}
		time.Sleep(time.Minute)
		if err := m.RotateGroup(t.Context(), DefaultGroup, []*seal.PrivateKey{next, f.group}, event.ReasonCompromised); err != nil {
			t.Fatal(err)
		}
		wantRotated(t, m, next, f.group)
		for _, c := range list {
			f.wantSealed(t, m, c.ID, next)
			if got := at(t, m, c.ID); got.Generation != 2 || got.Mark != nil || got.lastReason() != event.ReasonCompromised {
				t.Errorf("%s: generation %d, %+v, because %s", c.ID, got.Generation, got.Mark, got.lastReason())
			}
		}
		for _, g := range guests {
			g.wantKeys(t, m, next)
		}
		// Who joins afterwards gets no retired key, though it is held.
		g := f.guest(t, newToken(t, m))
		g.ask(t)
		time.Sleep(time.Minute)
		g.wantKeys(t, m, next)
	})
}

// TestRotationKilledAtEveryStep and called again, while others run and while
// none does.
func TestRotationKilledAtEveryStep(t *testing.T) {
	for _, runners := range []int{0, 2} {
		for step, ended := 1, false; !ended; step++ {
			synctest.Test(t, func(t *testing.T) {
				f, m := newJoinable(t)
				next := newKey(t)
				keys := []*seal.PrivateKey{next, f.group}
				list := makeMany(t, m, 3)
				g := f.joined(t, m, "lb1")
				for range runners {
					defer run(t, f.holder(t, keys...))()
				}
				ctx, kill := context.WithCancel(t.Context())
				defer kill()
				var mu sync.Mutex
				n := 0
				dying := f.configured(t, func(c *Config) {
					c.Progress = func(string, string) {
						mu.Lock()
						defer mu.Unlock()
						if n++; n == step {
							kill()
						}
					}
				})
				err := dying.RotateGroup(ctx, DefaultGroup, keys, event.ReasonGroupKey)
				if ended = ctx.Err() == nil; ended && err != nil {
					t.Fatal(err)
				}
				if err := m.RotateGroup(t.Context(), DefaultGroup, keys, event.ReasonGroupKey); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
				time.Sleep(time.Minute)
				wantRotated(t, m, next, f.group)
				g.wantKeys(t, m, next)
				for _, c := range list {
					f.wantSealed(t, m, c.ID, next)
				}
			})
			if step > 100 {
				t.Fatal("it never ends")
			}
		}
	}
}

// TestRunCompletesARotation that nobody calls again.
func TestRunCompletesARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		next := newKey(t)
		list := makeMany(t, m, 5)
		g := f.joined(t, m, "lb1")
		if err := m.giveNewKey(t.Context(), DefaultGroup, []*seal.PrivateKey{next, f.group}, event.ReasonCompromised); err != nil {
			t.Fatal(err)
		}
		g.wantKeys(t, m, next, f.group)
		defer run(t, f.manager(t, ""))() // it holds no keys
		time.Sleep(3 * time.Minute)
		wantRotated(t, m, next, f.group)
		g.wantKeys(t, m, next)
		for _, c := range list {
			f.wantSealed(t, m, c.ID, next)
			if r := at(t, m, c.ID).lastReason(); r != event.ReasonCompromised {
				t.Error(r)
			}
		}
	})
}

// TestRotationWhileOneIsIssued: the attempt has read the former key.
func TestRotationWhileOneIsIssued(t *testing.T) {
	for what, first := range map[string]bool{"its first generation": true, "a renewal": false} {
		synctest.Test(t, func(t *testing.T) {
			f, m := newJoinable(t)
			next := newKey(t)
			rotate := func(ctx context.Context) error {
				return f.manager(t, "").RotateGroup(ctx, DefaultGroup, []*seal.PrivateKey{next, f.group}, event.ReasonGroupKey)
			}
			var c *Managed
			if !first {
				c = make1(t, m, "a.example")
			}
			var rotated sync.WaitGroup
			orders := 0
			wrap(t, m, &faultyIssuer{before: func(context.Context) error {
				if orders++; orders == 1 {
					rotated.Go(func() {
						if err := rotate(t.Context()); err != nil {
							t.Error(what, err)
						}
					})
					time.Sleep(time.Minute)
				}
				return nil
			}})
			var err error
			if first {
				c, err = m.Make(t.Context(), Request{Names: []string{"a.example"}})
			} else {
				_, err = m.Renew(t.Context(), c.ID, event.ReasonRenewal)
			}
			if err != nil {
				t.Fatal(what, err)
			}
			rotated.Wait()
			f.wantSealed(t, m, c.ID, next)
			if got := at(t, m, c.ID); got.Mark != nil {
				t.Errorf("%s: %+v", what, got.Mark)
			}
			wantRotated(t, m, next, f.group)
		})
	}
}

// TestRotationBeforeAClaim: the key was read, and nothing claimed yet.
func TestRotationBeforeAClaim(t *testing.T) {
	for _, marked := range []bool{false, true} {
		f, m := newJoinable(t)
		next := newKey(t)
		c := make1(t, m, "a.example")
		if marked { // for another reason, before
			if err := m.Mark(t.Context(), c.ID, event.ReasonRollback); err != nil {
				t.Fatal(err)
			}
		}
		inner := f.log
		f.log = &beforeAppend{Log: inner, key: event.StateKey(c.ID), do: func() {
			if err := m.giveNewKey(t.Context(), DefaultGroup, []*seal.PrivateKey{next, f.group}, event.ReasonGroupKey); err != nil {
				t.Error(err)
			}
			if _, err := m.markStale(t.Context(), DefaultGroup, event.ReasonGroupKey); err != nil {
				t.Error(err)
			}
		}}
		if _, err := f.manager(t, "").Renew(t.Context(), c.ID, event.ReasonRenewal); err != nil {
			t.Fatal(err)
		}
		f.log = inner
		f.wantSealed(t, m, c.ID, next)
	}
}

// beforeAppend is a bus on which something happens just before a key is first
// written.
type beforeAppend struct {
	bus.Log
	key  string
	once sync.Once
	do   func()
}

func (l *beforeAppend) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if key == l.key {
		l.once.Do(l.do)
	}
	return l.Log.Append(ctx, key, after, data)
}

func TestAKeyThatIsNeededIsNotRetired(t *testing.T) {
	f, m := newJoinable(t)
	next := newKey(t)
	c := make1(t, m, "a.example")
	retired := func() bool {
		t.Helper()
		if err := m.RetireKeys(t.Context(), DefaultGroup); err != nil {
			t.Fatal(err)
		}
		g, _, err := m.group(t.Context(), DefaultGroup)
		if err != nil {
			t.Fatal(err)
		}
		return len(g.Retiring) == 0
	}
	if err := m.giveNewKey(t.Context(), DefaultGroup, []*seal.PrivateKey{next, f.group}, event.ReasonGroupKey); err != nil {
		t.Fatal(err)
	}
	if retired() {
		t.Fatal("a certificate is sealed to it")
	}
	inner := f.log
	f.log = noCopies{inner}
	_, _ = f.manager(t, "").Renew(t.Context(), c.ID, event.ReasonGroupKey) // fails, as wanted
	if err := f.manager(t, "").RetireKeys(t.Context(), DefaultGroup); err == nil {
		t.Fatal("what stands for replicas is sealed to it, and cannot be replaced")
	}
	f.log = inner
	// A certificate without a generation: its maker may have read the key.
	spec := c.Spec
	spec.Names = []string{"b.example"}
	begun, err := m.create(t.Context(), event.NewID(), &spec)
	if err != nil {
		t.Fatal(err)
	}
	if retired() {
		t.Fatal("who makes a first generation may seal to it")
	}
	f.wantSealed(t, m, c.ID, next) // it was copied
	if _, err := m.markStale(t.Context(), DefaultGroup, event.ReasonGroupKey); err != nil || at(t, m, begun.ID).Mark == nil {
		t.Fatal(err)
	}
	if !retired() {
		t.Error("nothing needs it")
	}
}

func TestTwoRotationsAtOnce(t *testing.T) {
	for _, same := range []bool{true, false} {
		f, m := newJoinable(t)
		list := makeMany(t, m, 10)
		g := f.joined(t, m, "lb1")
		keys := []*seal.PrivateKey{newKey(t), newKey(t)}
		if same {
			keys[1] = keys[0]
		}
		errs := make([]error, 2)
		var wg sync.WaitGroup
		for i, k := range keys {
			other := f.manager(t, "")
			wg.Go(func() {
				errs[i] = other.RotateGroup(t.Context(), DefaultGroup, []*seal.PrivateKey{k, f.group}, event.ReasonGroupKey)
			})
		}
		wg.Wait()
		won := slices.Index(errs, nil)
		if won < 0 || same != (errs[1-won] == nil) {
			t.Fatalf("same key %t: %v", same, errs)
		}
		wantRotated(t, m, keys[won], f.group)
		for _, c := range list {
			f.wantSealed(t, m, c.ID, keys[won])
		}
		if h := g.member(t, m); !slices.Contains(h.KeyIDs, keys[won].Public().ID()) {
			t.Error("the member has not the new key")
		}
	}
}

// TestARotationGoesOnPastAFailure, which keeps its mark.
func TestARotationGoesOnPastAFailure(t *testing.T) {
	f, m := newJoinable(t)
	next := newKey(t)
	list := makeMany(t, m, 5)
	orders := 0
	var mu sync.Mutex
	wrap(t, m, &faultyIssuer{before: func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if orders++; orders == 2 {
			return errors.New("CA is down")
		}
		return nil
	}})
	keys := []*seal.PrivateKey{next, f.group}
	err := m.RotateGroup(t.Context(), DefaultGroup, keys, event.ReasonGroupKey)
	if err == nil || !strings.Contains(err.Error(), "CA is down") {
		t.Fatal(err)
	}
	stale := 0
	for _, c := range list {
		if got := at(t, m, c.ID); got.Generation == 1 {
			if stale++; got.Mark == nil || got.Failure == nil {
				t.Errorf("%+v", got.State)
			}
		}
	}
	if g, _, err := m.group(t.Context(), DefaultGroup); err != nil || stale != 1 || len(g.Retiring) != 1 {
		t.Fatal(stale, err)
	}
	if err := m.RotateGroup(t.Context(), DefaultGroup, keys, event.ReasonGroupKey); err != nil {
		t.Fatal(err)
	}
	wantRotated(t, m, next, f.group)
}

func TestUnfitRotations(t *testing.T) {
	f, m := newJoinable(t)
	next := newKey(t)
	keys := []*seal.PrivateKey{next, f.group}
	if err := m.RotateGroup(t.Context(), DefaultGroup, keys, event.ReasonGroupKey); err != nil {
		t.Fatal(err)
	}
	var invalid *InvalidError
	for what, try := range map[string]struct {
		group, reason string
		keys          []*seal.PrivateKey
	}{
		"no keys":         {DefaultGroup, event.ReasonGroupKey, nil},
		"a former key":    {DefaultGroup, event.ReasonGroupKey, []*seal.PrivateKey{f.group, next}},
		"not the current": {DefaultGroup, event.ReasonGroupKey, []*seal.PrivateKey{newKey(t), f.group}},
		"no such group":   {"nobody", event.ReasonGroupKey, keys},
		"no such reason":  {DefaultGroup, event.ReasonRenewal, keys},
	} {
		if err := m.RotateGroup(t.Context(), try.group, try.keys, try.reason); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	wantRotated(t, m, next, f.group)
}
