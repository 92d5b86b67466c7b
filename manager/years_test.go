// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/race"
	"github.com/keyturn/keyturn/internal/schedule"
	"github.com/keyturn/keyturn/seal"
)

// livesOf are the lifetimes of which there are 2,500 certificates each. Nearly all
// renewals are those of six days.
var livesOf = []time.Duration{6 * day, 47 * day, 90 * day, 398 * day}

// TestFiveYears runs the scheduler alone, from 2026 to 2031, with 10,000
// certificates: its plans, queues, budgets and workers as they are, with states
// and budgets in memory in place of the bus, and in place of an issuer a CA that
// keeps to Let's Encrypt's limits to the letter. The CA is down for 48 hours three
// times, and once it recalls all certificates; it says when to renew in the days
// around that only, since ten thousand questions four times a day for five years
// would be most of the work.
//
// No certificate ends, no order is refused for a limit, and no minute has more
// orders than an even pace within the limit, two, which is no more than three times
// the mean of the five years; what follows an outage is no exception. The recall is:
// a CA that says so exempts what it wants replaced from its limits, and waiting would
// leave revoked certificates in use. It is spread by when each certificate's CA is
// asked, and held to three times its own mean, that of the hours from the recall to
// the last replacement.
//
// All of it is the same in each run: ids and jitters are given, and what happens at
// one time comes to the same in any order.
//
// The race detector is given a twentieth of the certificates, since it needs many times
// as long for each renewal. They are too few for a mean by the minute, and held to
// the even pace only.
func TestFiveYears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		time.Sleep(time.Until(start))
		v := newVirtual(t)
		ctx, cancel := context.WithCancel(t.Context())
		s := v.scheduler(ctx)
		v.populate(s)
		var run sync.WaitGroup
		run.Go(func() { s.loop(); s.work.Wait() })

		outages := []time.Time{start.AddDate(0, 8, 0), start.AddDate(2, 1, 27), start.AddDate(4, 2, 0)} // one begins before a leap day
		recall := start.AddDate(3, 3, 0)
		for _, step := range []struct {
			at time.Time
			do func()
		}{
			{outages[0], func() { v.down(48 * time.Hour) }},
			{outages[1], func() { v.down(48 * time.Hour) }},
			{recall.Add(-day), func() { v.inform(s, true) }},
			{recall, func() { v.recall() }},
			{recall.Add(2 * day), func() { v.inform(s, false) }},
			{outages[2], func() { v.down(48 * time.Hour) }},
			{start.AddDate(5, 0, 0), func() {}},
		} {
			time.Sleep(time.Until(step.at))
			step.do()
		}
		cancel()
		run.Wait()
		v.judge(t, s, start, recall)
	})
}

// A virtual CA and the states that come of it.
type virtual struct {
	m   *Manager
	set *settings

	mu       sync.Mutex
	seq      uint64                   // guarded by mu; of positions
	budgets  map[string]*event.Budget // guarded by mu; by shard
	tats     map[string]time.Time     // guarded by mu; the CA's own count
	upAgain  time.Time                // guarded by mu
	recalled time.Time                // guarded by mu; what was made before is revoked
	replaced time.Time                // guarded by mu; when the last of that was
	minutes  map[int64]int            // guarded by mu; orders by minute
	stats    struct {
		renewed, refused, failed, expired, asked, late int
		reasons                                        map[string]int
	} // guarded by mu
}

func newVirtual(t *testing.T) *virtual {
	identity, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Log: membus.New(), Identity: identity, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	v := &virtual{
		m: m, budgets: make(map[string]*event.Budget), tats: make(map[string]time.Time), minutes: make(map[int64]int),
		set: &settings{after: 3, limits: map[string]config.Limits{"ca": limitsOf(&config.ACME{Directory: "letsencrypt"})}},
	}
	v.stats.reasons = make(map[string]int)
	return v
}

func (v *virtual) scheduler(ctx context.Context) *scheduler {
	s := newScheduler(ctx, v.m)
	s.set = v.set
	s.attempt = func(ctx context.Context, c *Managed, issuer, reason string) (*Managed, error) {
		return v.attempt(ctx, s, c, issuer, reason)
	}
	s.ask = func(_ context.Context, c *Managed) (*Managed, error) { return v.ask(s, c), nil }
	s.jitter = jitterOf
	return s
}

// jitterOf depends on nothing but the certificate and the time.
func jitterOf(c *Managed, spread time.Duration) time.Duration {
	h := fnv.New64a()
	fmt.Fprint(h, c.ID, time.Now().UnixNano())
	return time.Duration(h.Sum64() % uint64(spread))
}

// populate makes certificates that were made at different times before.
func (v *virtual) populate(s *scheduler) {
	rng := rand.New(rand.NewPCG(1, 2))
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	count := 2500
	if race.Enabled {
		count /= 20
	}
	for _, life := range livesOf {
		for i := range count {
			n++
			domain := n % 4000
			if life == 6*day && i < 16 { // of one domain, near its limit
				domain = 9999
			}
			c := &Managed{State: event.State{ID: fmt.Sprintf("%010dA", n), Spec: event.Spec{
				Issuer: "ca", Names: []string{fmt.Sprintf("h%d.d%d.co.uk", n, domain)}, Lifetime: life, Created: time.Now(),
			}}}
			used := (config.RenewBefore{}).Of(life)
			issue(c, time.Now().Add(-rand64(rng, life-used)), event.ReasonNew)
			s.known[c.ID] = c
			s.planLocked(c, 0)
		}
	}
}

func rand64(rng *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(d)))
}

// issue makes a generation.
func issue(c *Managed, at time.Time, reason string) {
	c.Epoch, c.Generation = 1, c.Generation+1
	c.Certificate = &event.Certificate{Version: c.Version, NotBefore: at.Add(-time.Hour), NotAfter: at.Add(c.Spec.Lifetime - time.Hour)}
	c.History = []event.Record{{Version: c.Version, At: at, Reason: reason, Issuer: "ca"}}
	c.Failure, c.Hold, c.Renewal = nil, nil, nil
	c.Issued, c.Changed, c.Seen = at, at, time.Now()
}

// attempt is Manager.scheduled with states in memory.
func (v *virtual) attempt(ctx context.Context, s *scheduler, c *Managed, issuer, reason string) (*Managed, error) {
	n := c.needs(issuer, true, time.Now())
	v.mu.Lock()
	if n == endangered || n == lost {
		v.stats.late++
	}
	l := ledger{load: v.load, save: v.save}
	err := l.draw(ctx, v.set, c, issuer, n)
	if err == nil {
		v.minutes[time.Now().Unix()/60]++
		if err = v.order(c, n == free); err != nil {
			err = errors.Join(err, l.giveBack(ctx, v.set, c, issuer, n))
		}
	}
	v.mu.Unlock()
	var held *HeldError
	if errors.As(err, &held) {
		if !held.Account {
			v.write(s, c, func(next *Managed) { next.Hold = &event.Hold{Until: held.Until, Reason: held.Reason} })
		}
		return nil, err
	}
	select { // validation takes its time, and so does a CA that is down
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(2*time.Second + c.rules().Life()%(4*time.Second)):
	}
	if err != nil {
		v.write(s, c, func(next *Managed) { next.Failure = c.failure(issuer, err) })
		return nil, err
	}
	return v.write(s, c, func(next *Managed) {
		v.stats.renewed++
		v.stats.reasons[reason]++
		if reason == event.ReasonCA {
			v.replaced = time.Now()
		}
		if time.Now().After(c.Certificate.NotAfter) {
			v.stats.expired++
		}
		issue(next, time.Now(), reason)
	}), nil
}

// order is the CA: down, or strict about its limits. Orders that replace a
// certificate of its own are exempt.
func (v *virtual) order(c *Managed, replaces bool) error {
	now := time.Now()
	if now.Before(v.upAgain) {
		v.stats.failed++
		return errors.New("CA is down")
	}
	if replaces {
		return nil
	}
	buckets := []struct {
		key   string
		count int
		per   time.Duration
	}{
		{"account", 300, 3 * time.Hour},
		{registered(c.Spec.Names)[0], 50, 7 * day},
		{c.Spec.Names[0], 5, 7 * day},
	}
	for _, b := range buckets {
		if v.tat(b.key, b.count, b.per).After(now.Add(b.per)) {
			v.stats.refused++
			return errors.New("rateLimited: " + b.key)
		}
	}
	for _, b := range buckets {
		v.tats[b.key] = v.tat(b.key, b.count, b.per)
	}
	return nil
}

// tat is when a bucket would be full again after one more order.
func (v *virtual) tat(key string, count int, per time.Duration) time.Time {
	from := v.tats[key]
	if now := time.Now(); from.Before(now) {
		from = now
	}
	return from.Add(per / time.Duration(count))
}

func (v *virtual) load(_ context.Context, issuer, shard string) (*event.Budget, bus.Position, error) {
	b := v.budgets[shard]
	if b == nil {
		b = &event.Budget{Issuer: issuer, Shard: shard}
		v.budgets[shard] = b
	}
	return b, bus.Position{}, nil
}

func (v *virtual) save(context.Context, *event.Budget, bus.Position) error { return nil }

// write changes a state and has the scheduler take it, as it would from a bus. v.mu
// is held while it is changed.
func (v *virtual) write(s *scheduler, c *Managed, change func(*Managed)) *Managed {
	next := *c
	v.mu.Lock()
	next.Changed, next.Seen = time.Now(), time.Now()
	change(&next)
	v.seq++
	next.Position = bus.Position{Log: "v", Seq: v.seq}
	v.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[c.ID] = &next
	s.planLocked(&next, 0)
	return &next
}

func (v *virtual) down(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.upAgain = time.Now().Add(d)
}

// recall revokes everything: whoever asks is told that the window is over.
func (v *virtual) recall() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.recalled = time.Now()
}

// inform has the CA say when to renew, or not any more.
func (v *virtual) inform(s *scheduler, says bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := *v.set
	set.informs = map[string]bool{"ca": says}
	s.set = &set
	for _, c := range s.known {
		s.planAskLocked(c)
	}
	s.poke()
}

func (v *virtual) ask(s *scheduler, c *Managed) *Managed {
	return v.write(s, c, func(next *Managed) {
		v.stats.asked++
		now := time.Now()
		next.Renewal = &event.Renewal{Generation: c.Generation, Asked: now, Next: now.Add(6 * time.Hour)}
		if !v.recalled.IsZero() && c.Issued.Before(v.recalled) {
			next.Renewal.Start, next.Renewal.End = v.recalled.Add(-2*time.Hour), v.recalled.Add(-time.Hour)
		}
	})
}

// judge says what came of it.
func (v *virtual) judge(t *testing.T, s *scheduler, start, recall time.Time) {
	now := time.Now()
	for _, c := range s.known {
		if c.Certificate.NotAfter.Before(now) {
			v.stats.expired++
		}
	}
	peak, mean := v.orders(start, now, recall, v.replaced)
	peakOfRecall, meanOfRecall := v.orders(recall, v.replaced)
	t.Logf("%d renewed (%v), %d attempts failed while the CA was down, %d in danger, asked %d times when to renew", v.stats.renewed, v.stats.reasons, v.stats.failed, v.stats.late, v.stats.asked)
	t.Logf("%.2f orders in a minute on average, %d at most; in the recall, for %v, %.1f and %d", mean, peak, v.replaced.Sub(recall), meanOfRecall, peakOfRecall)
	if v.stats.expired > 0 || v.stats.refused > 0 {
		t.Errorf("%d certificates ended, %d orders were refused", v.stats.expired, v.stats.refused)
	}
	pace := int(time.Minute/schedule.Rate(v.set.limits["ca"].Orders).Even(margin).Per) + 1
	if peak > pace || !race.Enabled && (float64(peak) > 3*mean || float64(peakOfRecall) > 3*meanOfRecall) {
		t.Error("a herd")
	}
	if v.stats.reasons[event.ReasonCA] < len(s.known)*9/10 {
		t.Errorf("%d were renewed because they were recalled", v.stats.reasons[event.ReasonCA])
	}
}

// orders returns the most of a minute and the mean of all, of a time, without those of
// another time in it.
func (v *virtual) orders(from, to time.Time, but ...time.Time) (peak int, mean float64) {
	for minute, n := range v.minutes {
		at := time.Unix(minute*60, 0)
		if at.Before(from) || at.After(to) {
			continue
		}
		if mean += float64(n); len(but) == 0 || at.Before(but[0]) || at.After(but[1]) {
			peak = max(peak, n)
		}
	}
	return peak, mean / to.Sub(from).Minutes()
}
