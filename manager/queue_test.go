// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
)

// A watchedIssuer is the real one behind something that sees which names are asked for.
type watchedIssuer struct {
	real   issuer.Issuer
	before func(ctx context.Context, name string) error // the first name

	mu           sync.Mutex
	asked        []string // guarded by mu
	atOnce, most int      // guarded by mu
}

func (i *watchedIssuer) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	i.mu.Lock()
	i.asked = append(i.asked, csr.DNSNames[0])
	i.atOnce++
	i.most = max(i.most, i.atOnce)
	i.mu.Unlock()
	defer func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.atOnce--
	}()
	if err := i.before(ctx, csr.DNSNames[0]); err != nil {
		return nil, err
	}
	return i.real.Issue(ctx, csr, lifetime)
}

// seen returns which names were asked for, and how many at once at most.
func (i *watchedIssuer) seen() (asked []string, most int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.asked), i.most
}

// watch puts something before m's real issuer that sees each order.
func watch(t *testing.T, m *Manager, before func(ctx context.Context, name string) error) *watchedIssuer {
	t.Helper()
	real, err := m.issuer(t.Context(), "internal")
	if err != nil {
		t.Fatal(err)
	}
	i := &watchedIssuer{real: real, before: before}
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.issuers["internal"]
	c.issuer = i
	m.issuers["internal"] = c
	return i
}

// hangsForBad is a CA that looks at some names until it is not waited for any more.
func hangsForBad(ctx context.Context, name string) error {
	if !strings.HasPrefix(name, "bad") {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// marked makes certificates and marks them, and returns their ids.
func marked(t *testing.T, m *Manager, n int, name string) (ids []string) {
	t.Helper()
	for i := range n {
		c := make1(t, m, fmt.Sprintf("%s%d.example", name, i))
		if err := m.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.ID)
	}
	return ids
}

// TestHangingNamesHoldUpNobody: however many names a CA looks at in vain for minutes,
// others of the same issuer are renewed at once, although they end later.
func TestHangingNamesHoldUpNobody(t *testing.T) {
	for _, bad := range []int{1, 5 * perIssuer} {
		t.Run(fmt.Sprint(bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m := newFleet(t)
				failing := marked(t, m, bad, "bad")
				runner := f.manager(t, "")
				watch(t, runner, hangsForBad)
				stop := run(t, runner)
				defer stop()
				time.Sleep(time.Hour) // each has failed by now, and they wait in turns
				for round := range 20 {
					good := marked(t, m, 3, fmt.Sprintf("good%d-", round)) // which end later
					time.Sleep(30 * time.Second)
					for _, id := range good {
						if c := at(t, m, id); c.Generation != 2 {
							t.Errorf("after %d failing ones: generation %d, %+v", bad, c.Generation, c.Failure)
						}
					}
					time.Sleep(10 * time.Minute)
				}
				for _, id := range failing {
					if c := at(t, m, id); c.Failure == nil || c.Failure.Attempts < 2 || c.Generation != 1 {
						t.Errorf("one that fails is not tried on: generation %d, %+v", c.Generation, c.Failure)
					}
				}
			})
		})
	}
}

// TestAPassGetsToOthers although more fail than it has time for.
func TestAPassGetsToOthers(t *testing.T) {
	for _, o := range []DueOptions{{For: 10 * time.Minute}, {Max: 6}} {
		synctest.Test(t, func(t *testing.T) {
			f, m := newFleet(t)
			marked(t, m, 5*perIssuer, "bad")
			first := f.manager(t, "")
			watch(t, first, hangsForBad)
			if _, err := first.RenewDue(t.Context(), DueOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			good := marked(t, m, 3, "good")
			timer := f.manager(t, "")
			watch(t, timer, hangsForBad)
			list, err := timer.RenewDue(t.Context(), o)
			got := results(t, list, err)
			for _, id := range good {
				if got[id].Err != nil || got[id].Generation != 2 {
					t.Errorf("%+v: %+v", o, got[id])
				}
			}
		})
	}
}

// TestTheOrderOfALane: what has the greater need first, then what ends soonest, and
// never more at once than are allowed.
func TestTheOrderOfALane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		var wanted []string
		for i := range 3 * perIssuer { // each made later ends later
			c := make1(t, m, fmt.Sprintf("h%02d.example", i))
			wanted = append(wanted, c.Spec.Names[0])
			time.Sleep(2 * time.Second)
		}
		endangered := make1(t, m, "endangered.example")
		for _, id := range idsOf(t, m) {
			reason := event.ReasonRekey
			if id == endangered.ID {
				reason = event.ReasonCompromised
			}
			if err := m.Mark(t.Context(), id, reason); err != nil {
				t.Fatal(err)
			}
		}
		runner := f.manager(t, "")
		i := watch(t, runner, func(ctx context.Context, _ string) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Minute):
				return nil
			}
		})
		if err := m.PauseIssuer(t.Context(), "internal", ""); err != nil {
			t.Fatal(err)
		}
		stop := run(t, runner)
		time.Sleep(time.Hour)
		if asked, _ := i.seen(); len(asked) != 0 {
			t.Errorf("an issuer that is paused was asked for %v", asked)
		}
		if q := runner.Stats().Queues; len(q) != 1 || q[0].Waiting != len(wanted)+1 || q[0].Running != 0 {
			t.Errorf("%+v", q)
		}
		if err := m.ResumeIssuer(t.Context(), "internal", ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(90 * time.Second) // the first are done, and the next under way
		if q := runner.Stats().Queues; len(q) != 1 || q[0].Waiting != perIssuer+1 || q[0].Running != perIssuer || !q[0].Until.IsZero() {
			t.Errorf("%+v", q)
		}
		stop() // what waits is not begun any more, and what is under way is called off
		asked, most := i.seen()
		want := append([]string{"endangered.example"}, wanted[:2*perIssuer-1]...)
		slices.Sort(asked[:perIssuer]) // they are begun at once
		slices.Sort(asked[perIssuer:])
		slices.Sort(want[:perIssuer])
		slices.Sort(want[perIssuer:])
		if !slices.Equal(asked, want) || most != perIssuer {
			t.Errorf("%d at once: %v, want %v", most, asked, want)
		}
		for _, id := range idsOf(t, m) {
			if c := at(t, m, id); c.Failure != nil || c.Claim != nil {
				t.Errorf("%s: being called off is a failure, or keeps the claim: %+v, %+v", c.Spec.Names, c.Failure, c.Claim)
			}
		}
	})
}

func idsOf(t *testing.T, m *Manager) (ids []string) {
	t.Helper()
	list, err := m.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

// TestALane is its rules without a clock.
func TestALane(t *testing.T) {
	now := time.Now()
	of := func(id string, left time.Duration, failed bool) *Managed {
		c := &Managed{State: event.State{ID: id}, Certificate: &event.Certificate{NotAfter: now.Add(left)}}
		if failed {
			c.Failure = &event.Failure{Attempts: 1}
		}
		return c
	}
	var l lane
	next := func(want string, wait time.Duration) {
		t.Helper()
		if id, w := l.next(now); id != want || w != wait {
			t.Errorf("%q in %v is next, want %q in %v", id, w, want, wait)
		}
	}
	next("", 0)
	l.put(of("routine", 30*day, false), routine)
	l.put(of("retry", 20*day, true), routine)
	l.put(of("wanted", 80*day, false), wanted)
	next("wanted", 0)
	l.put(of("wanted", 80*day, false), endangered) // its need has grown
	if l.len() != 3 {
		t.Errorf("%d wait", l.len())
	}
	// A pace that is used up holds only what is spread; an account that is, all that may
	// draw no more, but nothing that draws on nothing.
	l.block(&HeldError{Account: true, Until: now.Add(time.Minute), need: endangered, pace: true})
	next("", time.Minute)
	l.put(of("pressing", 70*day, false), pressing)
	next("pressing", 0)
	l.block(&HeldError{Account: true, Until: now.Add(time.Hour), need: pressing})
	next("", time.Minute)
	l.put(of("free", 70*day, false), free)
	next("free", 0)
	l.put(of("free", 70*day, false), lost)
	next("free", 0)
	l.remove("free")
	l.block(&HeldError{Until: now.Add(day), need: lost}) // one domain's alone
	next("", time.Minute)
	now = now.Add(time.Minute)
	next("wanted", 0)
	l.remove("wanted")
	l.remove("pressing")
	now = now.Add(time.Hour)
	next("retry", 0) // it ends sooner
	for range retriesAtOnce {
		l.begin(true)
	}
	next("routine", 0)
	l.remove("routine")
	next("", 0) // until one that failed before has ended
	l.end(true)
	next("retry", 0)
}

// TestAPassDrawsWhatAPaceWould between two passes, and all that is allowed for who
// waits.
func TestAPassDrawsWhatAPaceWould(t *testing.T) {
	limits := config.Limits{Orders: config.Rate{Count: 300, Per: 3 * time.Hour}} // one in 40 seconds
	for name, test := range map[string]struct {
		every time.Duration
		waits bool
		want  int
	}{
		"each minute": {0, false, 1}, "each 2 minutes": {2 * time.Minute, false, 3}, "each day": {day, false, 12}, "somebody waits": {0, true, 12},
	} {
		synctest.Test(t, func(t *testing.T) {
			f, m := newFleet(t)
			ids := marked(t, m, 12, "h")
			timer, err := New(Config{Log: f.log, Identity: f.identity, Every: test.every, Logger: m.logger})
			if err != nil {
				t.Fatal(err)
			}
			limit(t, timer, "internal", limits)
			o := DueOptions{}
			if test.waits {
				o.Only = ids
			}
			list, err := timer.RenewDue(t.Context(), o)
			made := 0
			for _, r := range results(t, list, err) {
				var held *HeldError
				switch {
				case r.Err == nil:
					made++
				case !errors.As(r.Err, &held):
					t.Error(r.Err)
				}
			}
			if made != test.want {
				t.Errorf("%s: %d of 12 were renewed, want %d", name, made, test.want)
			}
		})
	}
}

// TestNothingWaitsTwice: what is put again moves, to another lane, too.
func TestNothingWaitsTwice(t *testing.T) {
	s := newScheduler(t.Context(), nil)
	s.set = &settings{after: 3}
	c := &Managed{State: event.State{ID: event.NewID(), Spec: event.Spec{Issuer: "a", Fallbacks: []string{"b"}}}, Position: bus.Position{Log: "x", Seq: 1}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[c.ID] = c
	s.queueLocked(c)
	s.queueLocked(c)
	failed := *c
	failed.Failure = &event.Failure{Attempts: 3, Issuer: "a", At: time.Now()}
	s.known[c.ID] = &failed
	s.queueLocked(&failed)
	if a, b := s.laneLocked("a").len(), s.laneLocked("b").len(); a != 0 || b != 1 {
		t.Errorf("%d wait for a, %d for b", a, b)
	}
	s.dequeueLocked(c.ID)
	if n := s.laneLocked("b").len(); n != 0 || len(s.queued) != 0 {
		t.Errorf("%d wait", n)
	}
}
