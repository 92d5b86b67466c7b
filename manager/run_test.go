// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/schedule"
)

// run runs the schedule until the returned function is called.
func run(t *testing.T, m *Manager) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { m.Run(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}

func at(t *testing.T, m *Manager, id string) *Managed {
	t.Helper()
	c, err := m.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRenewAt holds the rule for lifetimes from five minutes to 398 days.
func TestRenewAt(t *testing.T) {
	issued := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) // leap days and DST ahead
	for _, life := range []time.Duration{
		3 * time.Minute, 5 * time.Minute, time.Hour, 24 * time.Hour, 160 * time.Hour, 10*24*time.Hour - 1, 10 * 24 * time.Hour,
		47 * 24 * time.Hour, 90 * 24 * time.Hour, 200 * 24 * time.Hour, 398 * 24 * time.Hour,
	} {
		var earliest, latest time.Time
		for range 200 {
			c := &Managed{
				State:  event.State{ID: event.NewID(), Version: event.Version{Epoch: 1, Generation: 1}},
				Issued: issued,
				Certificate: &event.Certificate{
					NotBefore: issued.Add(-time.Minute), NotAfter: issued.Add(life),
				},
			}
			due := c.RenewAt()
			if due != c.RenewAt() {
				t.Fatal("the jitter is not deterministic")
			}
			if earliest.IsZero() || due.Before(earliest) {
				earliest = due
			}
			if due.After(latest) {
				latest = due
			}
		}
		left := life / 3
		if life < 10*24*time.Hour {
			left = life / 2
		}
		if want := issued.Add(life - left); latest.After(want) || earliest.Before(want.Add(-life/50)) {
			t.Errorf("%v: due from %v to %v, want up to %v", life, earliest, latest, want)
		}
		if latest.Sub(earliest) < life/100 {
			t.Errorf("%v: all due within %v", life, latest.Sub(earliest))
		}
	}
}

func TestRenewBefore(t *testing.T) {
	issued := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for before, left := range map[string]time.Duration{"30d": 30 * 24 * time.Hour, "720h": 720 * time.Hour, "50%": 45 * 24 * time.Hour, "": 30 * 24 * time.Hour} {
		c := &Managed{
			State:       event.State{ID: event.NewID(), Spec: event.Spec{RenewBefore: before}, Version: event.Version{Epoch: 1, Generation: 1}},
			Issued:      issued,
			Certificate: &event.Certificate{NotBefore: issued, NotAfter: issued.Add(90 * 24 * time.Hour)},
		}
		got := c.Certificate.NotAfter.Sub(c.RenewAt())
		if got < left || got > left+90*24*time.Hour/50 {
			t.Errorf("%q: renewed %v before the end", before, got)
		}
	}
}

// TestNeverInALoop asks for a renewal as soon as the certificate is made.
func TestNeverInALoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		before, err := config.ParseRenewBefore("9m59s")
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Lifetime: 10 * time.Minute, RenewBefore: before})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, f.manager(t, ""))
		defer stop()
		time.Sleep(10 * time.Minute)
		if n := at(t, m, c.ID).Generation; n > 52 {
			t.Errorf("%d generations in one lifetime", n)
		}
	})
}

func TestClaimsOfShortLives(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{
		3 * time.Minute: 30 * time.Second, 12 * time.Minute: ClaimLapse, 90 * 24 * time.Hour: ClaimLapse, 0: ClaimLapse,
	} {
		if got := (&Managed{State: event.State{Spec: event.Spec{Lifetime: life}}}).claimLapse(); got != want {
			t.Errorf("%v: %v, want %v", life, got, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	cert := func(life, left time.Duration) *Managed {
		return &Managed{Issued: now.Add(left - life), Certificate: &event.Certificate{NotBefore: now.Add(left - life), NotAfter: now.Add(left)}}
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		cert     *Managed
		failures uint64
		want     time.Duration
	}{
		{cert(90*day, 30*day), 1, time.Minute},
		{cert(90*day, 30*day), 2, 10 * time.Minute},
		{cert(90*day, 30*day), 3, 100 * time.Minute},
		{cert(90*day, 30*day), 4, day},
		{cert(90*day, 30*day), 400, day},
		{cert(90*day, 3*day), 9, 90 * day / 100},  // sooner as the end comes
		{cert(90*day, -3*day), 9, 90 * day / 100}, // and never in a loop
		{cert(160*time.Hour, 80*time.Hour), 9, 20 * time.Hour},
		{cert(3*time.Minute, 90*time.Second), 1, 22500 * time.Millisecond},
		{cert(3*time.Minute, -time.Second), 9, schedule.MinRetry},
		{&Managed{}, 1, time.Minute},
		{&Managed{}, 9, day},
	} {
		if got := c.cert.retryAfter(c.failures, now); got != c.want {
			t.Errorf("%d failures, %v left: retried after %v, want %v", c.failures, c.cert.leftAt(now), got, c.want)
		}
	}
}

func (c *Managed) leftAt(now time.Time) time.Duration {
	if c.Certificate == nil {
		return 0
	}
	return c.Certificate.NotAfter.Sub(now)
}

// TestRunRenewsInTime runs a year: restarted every month, by two managers at
// once for a while, certificates of very different lifetimes are always valid
// and are not renewed more often than the rule says.
func TestRunRenewsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		_, pos, err := m.ConfigText(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.UpdateConfig(t.Context(), []byte(strings.Replace(sharedConfig, "90d", "90d\n    max_lifetime: 398d", 1)), pos); err != nil {
			t.Fatal(err)
		}
		lives := map[string]time.Duration{}
		for _, life := range []string{"40h", "160h", "47d", "90d", "398d"} {
			d, err := config.ParseDuration(life)
			if err != nil {
				t.Fatal(err)
			}
			c, err := m.Make(t.Context(), Request{Names: []string{"a" + life + ".example"}, Lifetime: time.Duration(d)})
			if err != nil {
				t.Fatal(err)
			}
			lives[c.ID] = time.Duration(d)
		}
		start := time.Now()
		for month := range 12 {
			stop := run(t, f.manager(t, "one"))
			also := func() {}
			if month%3 == 0 {
				also = run(t, f.manager(t, "two"))
			}
			for range 30 * 2 {
				time.Sleep(12 * time.Hour)
				for id := range lives {
					if c := at(t, m, id); c.leftAt(time.Now()) <= 0 {
						t.Fatalf("month %d: the certificate of %v ended", month, lives[id])
					}
				}
			}
			stop()
			also()
			time.Sleep(time.Hour) // nobody runs
		}
		for id, life := range lives {
			share := 3. / 2
			if life < 10*24*time.Hour {
				share = 2
			}
			most := float64(time.Since(start)) / float64(life) * share * 1.1
			if n := at(t, m, id).Generation; float64(n) > most+1 {
				t.Errorf("%v: %d generations in a year, %v would do", life, n, most)
			}
		}
	})
}

func TestRunBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		bad := make1(t, m, "bad.example")
		good := make1(t, m, "good.example")
		runner := f.manager(t, "")
		var mu sync.Mutex
		var tries []time.Time
		i := new(faultyIssuer)
		wrap(t, runner, i)
		stop := run(t, runner)
		defer stop()
		time.Sleep(50 * 24 * time.Hour)
		synctest.Wait()
		i.set(func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			tries = append(tries, time.Now())
			return errors.New("CA is down")
		})
		time.Sleep(15 * 24 * time.Hour) // both are due after 60 days
		synctest.Wait()
		c := at(t, m, bad.ID)
		if c.Failure == nil || c.Failure.Attempts < 4 || !strings.Contains(c.Failure.Message, "CA is down") || c.Generation != 1 {
			t.Fatalf("%+v", c.Failure)
		}
		perDay := make(map[int]int)
		for _, at := range tries {
			perDay[int(at.Sub(tries[0])/(24*time.Hour))]++
		}
		for day, n := range perDay {
			if day > 1 && n > 2*4 {
				t.Errorf("%d attempts on day %d for two certificates", n, day)
			}
		}
		i.set(nil)
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		for _, id := range []string{bad.ID, good.ID} {
			if c := at(t, m, id); c.Generation != 2 || c.Failure != nil {
				t.Errorf("after the CA is back: generation %d, %+v", c.Generation, c.Failure)
			}
		}
	})
}

// TestOneSilentIssuerDelaysNoOther lets one issuer hang: the certificates of
// another are renewed meanwhile.
func TestOneSilentIssuerDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		_, pos, err := m.ConfigText(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text := "default_issuer: internal\n" + sharedConfig + "  other:\n    type: local\n    lifetime: 90d\n"
		if _, err := m.UpdateConfig(t.Context(), []byte(text), pos); err != nil {
			t.Fatal(err)
		}
		for n := range 3 * perIssuer {
			make1(t, m, fmt.Sprintf("silent%d.example", n))
		}
		healthy, err := m.Make(t.Context(), Request{Names: []string{"healthy.example"}, Issuer: "other"})
		if err != nil {
			t.Fatal(err)
		}
		runner := f.manager(t, "")
		wrap(t, runner, &faultyIssuer{before: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		stop := run(t, runner)
		defer stop()
		time.Sleep(60*24*time.Hour + time.Minute)
		if c := at(t, m, healthy.ID); c.Generation != 2 {
			t.Error("the healthy issuer's certificate waits for the silent issuer's")
		}
	})
}

// TestRunFinishesWhatACrashLeft: a commit whose copy was never made, and a claim
// whose manager died.
func TestRunFinishesWhatACrashLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		d := make1(t, m, "b.example")
		inner := f.log
		f.log = noCopies{inner}
		crashed := f.manager(t, "")
		if _, err := crashed.Renew(t.Context(), c.ID, event.ReasonRekey); err == nil {
			t.Fatal("the copy was made")
		}
		if err := crashed.Remove(t.Context(), d.ID); err == nil {
			t.Fatal("the copy was made")
		}
		f.log = inner
		if v := f.copyOf(t, c.ID).(*event.Certificate).Version; v.Generation != 1 {
			t.Fatal(v)
		}
		stop := run(t, m)
		defer stop()
		time.Sleep(grace + time.Second)
		synctest.Wait()
		if v := f.copyOf(t, c.ID).(*event.Certificate).Version; v.Generation != 2 {
			t.Error("the copy was not made up for")
		}
		if _, ok := f.copyOf(t, d.ID).(*event.Removal); !ok {
			t.Error("the removal's copy was not made up for")
		}

		// A claim on a due certificate whose manager died.
		c = at(t, m, c.ID)
		time.Sleep(c.leftAt(time.Now()) / 2)
		other := f.manager(t, "")
		if _, err := other.claim(t.Context(), at(t, m, c.ID), event.ReasonRenewal, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(60 * 24 * time.Hour)
		if c := at(t, m, c.ID); c.leftAt(time.Now()) <= 0 {
			t.Error("a dead claim kept a certificate from being renewed")
		}
	})
}

// TestCopiesAreMadeUpForWheneverTheyAreFound: the group's entries may be seen
// long after the states.
func TestCopiesAreMadeUpForWheneverTheyAreFound(t *testing.T) {
	for _, delay := range []time.Duration{0, 50 * time.Millisecond, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			f, m := newFleet(t)
			renewed, removed := make1(t, m, "a.example"), make1(t, m, "b.example")
			inner := f.log
			f.log = noCopies{inner}
			crashed := f.manager(t, "")
			_, _ = crashed.Renew(t.Context(), renewed.ID, event.ReasonRekey) // fails, as wanted
			_ = crashed.Remove(t.Context(), removed.ID)
			time.Sleep(time.Hour) // longer than any grace
			f.log = lateGroups{inner, delay}
			stop := run(t, f.manager(t, ""))
			defer stop()
			time.Sleep(delay + time.Minute)
			synctest.Wait()
			if v := f.copyOf(t, renewed.ID).(*event.Certificate).Version; v.Generation != 2 {
				t.Errorf("%v: the renewal was not copied", delay)
			}
			if _, ok := f.copyOf(t, removed.ID).(*event.Removal); !ok {
				t.Errorf("%v: the removal was not copied", delay)
			}
		})
	}
}

// lateGroups is a bus that takes its time to answer who follows the groups.
type lateGroups struct {
	bus.Log
	delay time.Duration
}

func (l lateGroups) Follow(ctx context.Context, scope string, from bus.Position) iter.Seq2[bus.Update, error] {
	if scope == "group" {
		time.Sleep(l.delay)
	}
	return l.Log.Follow(ctx, scope, from)
}

// TestRemovingAgainCopiesTheRemoval whose manager died before it could.
func TestRemovingAgainCopiesTheRemoval(t *testing.T) {
	f, m := newFleet(t)
	c := make1(t, m, "a.example")
	inner := f.log
	f.log = noCopies{inner}
	if err := f.manager(t, "").Remove(t.Context(), c.ID); err == nil {
		t.Fatal("the copy was made")
	}
	f.log = inner
	var removed *RemovedError
	if err := m.Remove(t.Context(), c.ID); !errors.As(err, &removed) {
		t.Error(err)
	}
	if _, ok := f.copyOf(t, c.ID).(*event.Removal); !ok {
		t.Error("the removal was not copied")
	}
}

// TestAWrongClockDoesNotStopRenewal: another manager, a year ahead, noted a
// failure, or began.
func TestAWrongClockDoesNotStopRenewal(t *testing.T) {
	now := time.Now()
	year := 365 * 24 * time.Hour
	cert := &event.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	v := event.Version{Epoch: 1, Generation: 1}
	for what, c := range map[string]*Managed{
		"a failure": {
			State:       event.State{Version: v, Failure: &event.Failure{At: now.Add(year), Next: now.Add(year + time.Minute)}},
			Certificate: cert, Issued: now.Add(-time.Hour), Seen: now,
		},
		"a new one": {State: event.State{Spec: event.Spec{Created: now.Add(year)}}, Seen: now},
	} {
		if due := c.RenewAt(); due.After(now.Add(time.Minute)) {
			t.Errorf("%s of a year ahead: due in %v", what, due.Sub(now))
		}
	}
}

// TestAClaimIsNotLostToItself: the renewals of a claim are written, and their
// answers are lost.
func TestAClaimIsNotLostToItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c := make1(t, m, "a.example")
		deaf := &deafBus{Log: f.log}
		slow, err := New(Config{Log: deaf, Identity: f.identity, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		i := new(faultyIssuer)
		wrap(t, slow, i)
		i.set(func(context.Context) error {
			deaf.deaf.Store(true)
			time.Sleep(100 * time.Second)
			deaf.deaf.Store(false)
			return nil
		})
		got, err := slow.Renew(t.Context(), c.ID, event.ReasonRekey)
		if err != nil || got.Generation != 2 || i.issued.Load() != 1 {
			t.Errorf("%v, %d orders, %v", got, i.issued.Load(), err)
		}
	})
}

// deafBus writes, and does not say so.
type deafBus struct {
	bus.Log
	deaf atomic.Bool
}

func (l *deafBus) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	at, err := l.Log.Append(ctx, key, after, data)
	if err == nil && l.deaf.Load() {
		return bus.Position{}, errors.New("no answer")
	}
	return at, err
}

// TestPlans: no certificate is ever without a plan, nor has it ever more.
func TestPlans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := newFleet(t)
		c := make1(t, m, "a.example")
		s := newScheduler(t.Context(), m)
		s.known[c.ID] = c
		for range 100 {
			s.takeCopy(bus.Update{CaughtUp: true})
		}
		if n := len(s.due); n > 2 { // the renewal, and a copy that is not there as far as this knows
			t.Errorf("%d plans after the bus was followed 100 times", n)
		}
		s.copies[c.ID], s.due = place{Version: c.Version}, nil
		s.due.push(c.ID, c.Position, time.Now()) // made when the clock was ahead
		s.start()
		if len(s.due) != 1 || !s.due[0].at.Equal(c.RenewAt()) {
			t.Errorf("a plan that came too early left %d plans", len(s.due))
		}
	})
}

// TestWhatCannotBeBelievedIsAFailure: an unreadable configuration is noted, and
// not asked for every few seconds.
func TestWhatCannotBeBelievedIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		_, pos, err := m.ConfigText(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.log.Append(t.Context(), event.ConfigKey, pos, []byte("junk")); err != nil {
			t.Fatal(err)
		}
		stop := run(t, f.manager(t, ""))
		defer stop()
		time.Sleep(31 * time.Minute)
		if got := at(t, m, c.ID); got.Failure == nil || got.Failure.Attempts > 5 || !strings.Contains(got.Failure.Message, "not to be believed") {
			t.Errorf("%+v", got.Failure)
		}
	})
}

// noCopies is a bus whose manager dies before it copies for a group.
type noCopies struct{ bus.Log }

func (l noCopies) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if bus.InScope(key, "group") {
		return bus.Position{}, errors.New("crashed")
	}
	return l.Log.Append(ctx, key, after, data)
}

// TestRunSurvivesAFlakyBus fails a third of all calls for a while.
func TestRunSurvivesAFlakyBus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, m := newFleet(t)
		c, err := m.Make(t.Context(), Request{Names: []string{"a.example"}, Lifetime: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		inner := f.log
		f.log = &flaky{Log: inner, rng: rand.New(rand.NewPCG(1, 2))}
		stop := run(t, f.manager(t, "x"))
		for range 24 * 60 {
			time.Sleep(time.Minute)
			if c := at(t, m, c.ID); c.leftAt(time.Now()) <= 0 {
				t.Fatal("the certificate ended")
			}
		}
		stop()
		if n := at(t, m, c.ID).Generation; n < 24 || n > 70 {
			t.Errorf("%d generations of an hour in a day", n)
		}
	})
}

type flaky struct {
	bus.Log
	mu  sync.Mutex
	rng *rand.Rand
}

func (l *flaky) fails() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rng.IntN(3) == 0
}

var errFlaky = errors.New("the bus failed")

func (l *flaky) Get(ctx context.Context, key string) (bus.Entry, error) {
	if l.fails() {
		return bus.Entry{}, errFlaky
	}
	return l.Log.Get(ctx, key)
}

// Append may fail before or after the entry was written.
func (l *flaky) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if l.fails() {
		return bus.Position{}, errFlaky
	}
	at, err := l.Log.Append(ctx, key, after, data)
	if err == nil && l.fails() {
		return bus.Position{}, errFlaky
	}
	return at, err
}
