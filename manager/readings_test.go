// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// lateBus is a bus that tells late of what changes in a scope, and notes what is
// asked of it.
type lateBus struct {
	bus.Log
	scope string
	late  time.Duration

	mu    sync.Mutex
	calls []string // guarded by mu; "get KEY" and "append KEY"
}

func (l *lateBus) note(call string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, call)
}

// take returns how many calls began so since it was asked last.
func (l *lateBus) take(prefix string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, call := range l.calls {
		if strings.HasPrefix(call, prefix) {
			n++
		}
	}
	l.calls = nil
	return n
}

func (l *lateBus) Get(ctx context.Context, key string) (bus.Entry, error) {
	l.note("get " + key)
	return l.Log.Get(ctx, key)
}

func (l *lateBus) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	l.note("append " + key)
	return l.Log.Append(ctx, key, after, data)
}

func (l *lateBus) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	return func(yield func(bus.Update, error) bool) {
		caught := false
		for u, err := range l.Log.Follow(ctx, scope, from) {
			if caught && bus.InScope(scope, l.scope) && ctx.Err() == nil {
				time.Sleep(l.late)
			}
			caught = caught || u.CaughtUp
			if !yield(u, err) {
				return
			}
		}
	}
}

// TestManyRenewalsReadTheConfigurationOnce, or as often as some begin at once.
func TestManyRenewalsReadTheConfigurationOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		list := makeMany(t, m, 10*perIssuer)
		late := &lateBus{Log: f.log, scope: "nothing"}
		f.log = late
		defer run(t, f.manager(t, ""))()
		synctest.Wait()
		if err := m.PauseIssuer(t.Context(), "internal", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := m.MarkIssuer(t.Context(), "internal", event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		late.take("")
		if err := m.ResumeIssuer(t.Context(), "internal", ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := late.take("get "); n > 6*perIssuer {
			t.Errorf("%d renewals asked the bus %d times", len(list), n)
		}
		for _, c := range list {
			if at(t, m, c.ID).Generation != 2 {
				t.Errorf("%s was not renewed", c.ID)
			}
		}
	})
}

// TestARenewalGoesByWhatWasChangedBeforeIt, however late the bus tells of that.
func TestARenewalGoesByWhatWasChangedBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		first, second := make1(t, m, "a.example"), make1(t, m, "b.example")
		inner := f.log
		f.log = &lateBus{Log: inner, scope: confScope, late: time.Hour}
		defer run(t, f.manager(t, ""))()
		f.log = inner
		if err := m.Mark(t.Context(), first.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // now there are readings
		time.Sleep(time.Second)
		next := newKey(t)
		f.configure(t, m, strings.Replace(sharedConfig, "90d", "30d", 1))
		keys := []*seal.PrivateKey{next, f.group}
		if err := m.RotateGroup(t.Context(), DefaultGroup, keys, event.ReasonGroupKey); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Managed{first, second} {
			if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for _, c := range []*Managed{first, second} {
			f.wantSealed(t, m, c.ID, next)
			now := at(t, m, c.ID)
			if now.Mark != nil || now.Certificate.NotAfter.After(time.Now().Add(31*day)) {
				t.Errorf("%s is good until %s, and marked: %v", c.ID, now.Certificate.NotAfter, now.Mark)
			}
		}
	})
}

// TestARotationReachesWhoHasReadTheFormerKey and goes on by what he has read.
func TestARotationReachesWhoHasReadTheFormerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newJoinable(t)
		c := make1(t, m, "a.example")
		inner := f.log
		f.log = &lateBus{Log: inner, scope: confScope, late: 1000 * time.Hour}
		runner := f.manager(t, "")
		defer run(t, runner)()
		f.log = inner
		synctest.Wait()
		if _, err := runner.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		next := newKey(t)
		keys := []*seal.PrivateKey{next, f.group}
		if err := m.giveNewKey(t.Context(), DefaultGroup, keys, event.ReasonGroupKey); err != nil {
			t.Fatal(err)
		}
		// It is not marked yet: it may be sealed to either.
		if _, err := runner.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		if _, err := m.markStale(t.Context(), DefaultGroup, event.ReasonGroupKey); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f.wantSealed(t, m, c.ID, next)
		// Nor may the former one be used once nothing needs it any more.
		if err := m.RetireKeys(t.Context(), DefaultGroup); err != nil {
			t.Fatal(err)
		}
		if _, err := runner.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		f.wantSealed(t, m, c.ID, next)
	})
}

// TestReadings holds what may be used instead of asking.
func TestReadings(t *testing.T) {
	start := time.Now()
	r := func(seq uint64, after time.Duration) reading {
		return reading{entry: bus.Entry{Position: bus.Position{Log: "l", Seq: seq}}, began: start.Add(after)}
	}
	told := func(seq uint64) bus.Update {
		return bus.Update{Entry: bus.Entry{Key: "conf/a", Position: bus.Position{Log: "l", Seq: seq}}}
	}
	for what, test := range map[string]struct {
		do   func(*readings)
		good bool
	}{
		"as it was read":                     {func(*readings) {}, true},
		"told of what was read":              {func(l *readings) { l.take(told(1)) }, true},
		"told of a change":                   {func(l *readings) { l.take(told(2)) }, false},
		"written here":                       {func(l *readings) { l.drop("conf/a") }, false},
		"something else was written here":    {func(l *readings) { l.drop("state/a") }, true},
		"not followed any more":              {func(l *readings) { l.end() }, false},
		"followed again, and not read again": {func(l *readings) { l.end(); l.take(bus.Update{CaughtUp: true}) }, false},
		"put after a change": {func(l *readings) {
			_, changes := l.find("conf/a", start.Add(time.Hour))
			l.take(told(3))
			l.put("conf/a", r(2, 0), changes)
		}, false},
	} {
		l := readings{byKey: make(map[string]reading)}
		l.put("conf/a", r(1, 0), 0)
		if known, _ := l.find("conf/a", time.Time{}); known != nil {
			t.Error("a reading was kept that nobody follows")
		}
		l.take(bus.Update{CaughtUp: true})
		l.put("conf/a", r(1, 0), l.changes)
		if known, _ := l.find("conf/a", start); known != nil {
			t.Error("a reading is good that is too old")
		}
		test.do(&l)
		if known, _ := l.find("conf/a", start.Add(-1)); (known != nil) != test.good {
			t.Errorf("%s: good is %t", what, known != nil)
		}
	}
}

// TestWhatWasBelievedIsBelievedByTheSameOnly: a manager that is none any more has not
// signed what was read before.
func TestWhatWasBelievedIsBelievedByTheSameOnly(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	id := f.other(t, m, "second", "")
	data, err := event.Sign(id.Signing, DefaultTenant, time.Now(), &c.State)
	if err != nil {
		t.Fatal(err)
	}
	key := event.StateKey(c.ID)
	e, err := m.open(t.Context(), key, data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := m.open(t.Context(), key, data); err != nil || again != e {
		t.Errorf("it was looked at again: %v", err)
	}
	if _, err := m.open(t.Context(), event.StateKey(event.NewID()), data); !errors.Is(err, event.ErrMoved) {
		t.Errorf("under another key: %v", err)
	}
	changed := append([]byte(nil), data...)
	changed[len(changed)-1] ^= 1
	if _, err := m.open(t.Context(), key, changed); !errors.Is(err, seal.ErrSignature) {
		t.Errorf("with another signature: %v", err)
	}
	if _, err := m.open(t.Context(), key, data); err != nil {
		t.Fatal(err)
	}
	if err := m.RevokeSigner(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.open(t.Context(), key, data); !errors.Is(err, seal.ErrUnknownSigner) {
		t.Errorf("by who is no manager any more: %v", err)
	}
}
