// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/schedule"
)

const (
	// perIssuer is how many renewals run at once with one issuer. A slow or
	// silent issuer holds up only its own.
	perIssuer = 8
	// retriesAtOnce is how many of them have failed before. They may fail again, which
	// takes minutes each where a CA looks at what is not there, and they end soonest:
	// without a bound they would keep all others waiting.
	retriesAtOnce = perIssuer / 2
	// revokedWithin is how long a CA has to revoke what must not be trusted any more
	// (CA/Browser Forum Baseline Requirements section 4.9.1.1).
	revokedWithin = 24 * time.Hour
)

// A lane is what waits for one issuer, and how much of it is under way. What has
// the greater need goes first, and of that what ends soonest.
type lane struct {
	waiting [lost + 1][2]schedule.Queue // by need; those that failed before in the second
	// blocked is until when no order is taken for a need: the account's budget is
	// used up.
	blocked           [lost + 1]time.Time
	running, retrying int
	// asks wait for the CA to be asked when to renew, and asking are under way.
	asks   schedule.Queue
	asking int
}

// put adds a certificate, or moves it to where it belongs by now.
func (l *lane) put(c *Managed, n need) {
	l.remove(c.ID)
	i := 0
	if c.Failure != nil {
		i = 1
	}
	l.waiting[n][i].Put(c.ID, c.urgency())
}

func (l *lane) remove(id string) {
	for n := range l.waiting {
		for i := range l.waiting[n] {
			l.waiting[n][i].Remove(id)
		}
	}
}

func (l *lane) len() (n int) {
	for i := range l.waiting {
		n += l.waiting[i][0].Len() + l.waiting[i][1].Len()
	}
	return n
}

// first returns the most urgent of those that can be begun of a need; "" if there is
// none.
func (l *lane) first(n need) string {
	others, retries := &l.waiting[n][0], &l.waiting[n][1]
	if retries.Len() > 0 && l.retrying < retriesAtOnce && (others.Len() == 0 || retries.Urgency().Compare(others.Urgency()) < 0) {
		return retries.First()
	}
	return others.First()
}

// block keeps orders from being asked for until a budget allows them.
func (l *lane) block(held *HeldError) {
	for n := range l.blocked {
		if held.holds(need(n)) {
			l.blocked[n] = later(l.blocked[n], held.Until)
		}
	}
}

// begin and end count what is under way.
func (l *lane) begin(retry bool) {
	l.running++
	if retry {
		l.retrying++
	}
}

func (l *lane) end(retry bool) {
	l.running--
	if retry {
		l.retrying--
	}
}

// next returns what is to be started now, or how long to wait for that; "" and 0
// if nothing waits but for others to end.
func (l *lane) next(now time.Time) (id string, wait time.Duration) {
	for n := lost; n >= routine; n-- {
		first := l.first(n)
		if first == "" {
			continue
		}
		left := l.blocked[n].Sub(now)
		if left <= 0 {
			return first, 0
		}
		if wait == 0 || left < wait {
			wait = left
		}
	}
	return "", wait
}

// urgency orders what has the same need: what ends soonest is first, and what is
// marked of that. What is revoked, or known to somebody who should not, ends when
// the CA has to have revoked it. Nothing is served where there is no generation
// yet, so that is first.
func (c *Managed) urgency() schedule.Urgency {
	u := schedule.Urgency{By: c.end(), First: c.Mark != nil}
	if c.recalled() {
		u.By = sooner(u.By, c.Renewal.End.Add(revokedWithin))
	}
	if c.Mark != nil && c.Mark.Reason == event.ReasonCompromised {
		u.By = sooner(u.By, c.Mark.At.Add(revokedWithin))
	}
	return u
}

// QueueStats is how much waits for one issuer.
type QueueStats struct {
	Issuer string
	// Waiting are due and not begun, and Running under way.
	Waiting, Running int
	// Until is when the next one can be begun that waits, because the issuer's
	// budget is used up; zero if it can now.
	Until time.Time
	// Paused says that nothing is begun.
	Paused bool
}

// queues are the lanes in which something is.
func (s *scheduler) queues() []QueueStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []QueueStats
	now := time.Now()
	for name, l := range s.lanes {
		q := QueueStats{Issuer: name, Waiting: l.len(), Running: l.running, Paused: s.paused[name]}
		if q.Waiting+q.Running == 0 {
			continue
		}
		if _, wait := l.next(now); wait > 0 {
			q.Until = now.Add(wait)
		}
		list = append(list, q)
	}
	slices.SortFunc(list, func(a, b QueueStats) int { return strings.Compare(a.Issuer, b.Issuer) })
	return list
}

func (s *scheduler) laneLocked(issuer string) *lane {
	l := s.lanes[issuer]
	if l == nil {
		l = new(lane)
		s.lanes[issuer] = l
	}
	return l
}

// asksLocked returns whom the next attempt asks.
func (s *scheduler) asksLocked(c *Managed) string {
	if instead := s.instead[c.ID]; instead != "" {
		return instead
	}
	return c.asks(s.after())
}

// after is how many failures make the next issuer be asked.
func (s *scheduler) after() int {
	if s.set == nil {
		return fallbackAfter
	}
	return s.set.after
}

// queueLocked puts what is due where it waits for its issuer.
func (s *scheduler) queueLocked(c *Managed) {
	issuer, now := s.asksLocked(c), time.Now()
	if was := s.queued[c.ID]; was != "" && was != issuer {
		s.laneLocked(was).remove(c.ID)
	}
	s.queued[c.ID] = issuer
	n := c.needs(issuer, true, now)
	s.laneLocked(issuer).put(c, n)
	// Its need grows with time.
	if c.Certificate != nil && n < lost {
		grows := c.last()
		if danger := c.danger(); danger.After(now) {
			grows = danger
		}
		s.due.push(c.ID, c.Position, later(grows, now.Add(time.Second)))
	}
}

// dequeueLocked lets go of what waits no more.
func (s *scheduler) dequeueLocked(id string) {
	if issuer := s.queued[id]; issuer != "" {
		s.laneLocked(issuer).remove(id)
		delete(s.queued, id)
	}
}

// feedLocked begins what can be begun, and returns how long nothing else can.
func (s *scheduler) feedLocked() time.Duration {
	wait := time.Minute
	now := time.Now()
	for issuer, l := range s.lanes {
		if s.paused[issuer] {
			continue
		}
		s.feedAsksLocked(issuer, l)
		for l.running < perIssuer {
			id, blocked := l.next(now)
			if blocked > 0 {
				wait = min(wait, blocked)
			}
			if id == "" {
				break
			}
			s.dequeueLocked(id)
			s.beginLocked(id, issuer, l)
		}
	}
	return wait
}

// beginLocked begins an attempt, if it is still wanted.
func (s *scheduler) beginLocked(id, issuer string, l *lane) {
	c := s.known[id]
	if c == nil || c.Removed || c.Pause != nil || s.busy[id] {
		return // what it is busy with plans it anew
	}
	if at := c.dueAt(); time.Until(at) > 0 {
		s.due.push(id, c.Position, at)
		return
	}
	if wait := s.m.claimed(c); wait > 0 {
		delete(s.instead, id)
		s.due.push(id, c.Position, time.Now().Add(wait)) // another manager is at it
		return
	}
	if now := time.Now(); c.needs(issuer, true, now).paced() { // the next one would be held
		l.block(&HeldError{Account: true, Until: now.Add(s.paceLocked(issuer)), need: endangered, pace: true})
	}
	retry := c.Failure != nil
	l.begin(retry)
	s.goLocked(c, func() (*Managed, error) { return s.attempt(s.ctx, c, issuer, c.reason()) }, func(err error) time.Duration {
		l.end(retry)
		delete(s.instead, id)
		var held *HeldError
		if !errors.As(err, &held) {
			return afterFailure
		}
		s.heldLocked(c, l, held)
		if held.Account || held.Instead != "" {
			return 0
		}
		return min(maxHold, max(schedule.MinRetry, time.Until(held.Until)))
	})
}

// paceLocked is how long the schedule lets go by between two orders at an issuer.
func (s *scheduler) paceLocked(issuer string) time.Duration {
	if s.set == nil {
		return 0
	}
	return schedule.Rate(s.set.limits[issuer].Orders).Even(margin).Per
}

// heldLocked keeps what waits for the same budget from beginning in vain, and has
// the stand-in asked, if there is one.
func (s *scheduler) heldLocked(c *Managed, l *lane, held *HeldError) {
	l.block(held)
	if held.Instead != "" {
		s.instead[c.ID] = held.Instead
	}
}
