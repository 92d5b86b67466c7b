// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"container/heap"
	"context"
	"time"

	"github.com/keyturn/keyturn/internal/schedule"
)

const (
	// askAgain is after how long a CA is asked that did not answer.
	askAgain = time.Hour
	// firstAsk is within what time after a generation was made its CA is asked first.
	firstAsk = time.Hour
	// overdueAsk is within what time it is made up for where nobody asked.
	overdueAsk = 6 * time.Hour
	// asking is how many are asked about at once.
	asking = 8
)

// askAt is from when on the CA of the newest generation, which is there, is asked
// when to renew it, and over what time several managers spread that: whoever asks
// first writes the answer down, and the others see it and wait anew.
func (c *Managed) askAt() (at time.Time, spread time.Duration) {
	r := c.Renewal
	if r == nil || r.Generation != c.Generation {
		return c.soonest(c.Issued.Add(grace), grace), min(firstAsk, c.lifetime()/100)
	}
	wait := min(max(0, r.Next.Sub(r.Asked)), maxPoll)
	return c.soonest(r.Asked.Add(wait), wait), wait / 10
}

// maxPoll is the longest time between two askings (issuer.RenewalInfo).
const maxPoll = 24 * time.Hour

// planAskLocked puts c on the heap for when its CA is to be asked when to renew.
func (s *scheduler) planAskLocked(c *Managed) {
	if c.Certificate == nil || s.set == nil || !s.set.informs[c.issuedBy()] {
		return
	}
	at, spread := c.askAt()
	if now := time.Now(); at.Add(spread).Before(now) { // nobody ran: not all are asked about at once
		at, spread = now, min(overdueAsk, c.lifetime()/20)
	}
	if spread > 0 {
		at = at.Add(s.jitter(c, spread))
	}
	heap.Push(&s.due, plan{at: later(at, s.unasked[c.ID]), id: c.ID, position: c.Position, ask: true})
}

// askLocked has it asked, as soon as few enough are.
func (s *scheduler) askLocked(c *Managed) {
	s.laneLocked(c.issuedBy()).asks.Put(c.ID, schedule.Urgency{By: time.Now()})
}

// feedAsksLocked asks what can be asked now.
func (s *scheduler) feedAsksLocked(issuer string, l *lane) {
	for l.asking < asking && l.asks.Len() > 0 {
		id := l.asks.First()
		l.asks.Remove(id)
		c := s.known[id]
		if c == nil || c.Removed || c.Pause != nil || s.busy[id] || c.issuedBy() != issuer || s.unasked[id].After(time.Now()) {
			continue // it is planned anew by whatever made it so
		}
		if at, _ := c.askAt(); time.Until(at) > 0 {
			continue // another manager has asked
		}
		l.asking++
		s.goLocked(c, func() (*Managed, error) { return s.ask(s.ctx, c) }, func(err error) time.Duration {
			l.asking--
			delete(s.unasked, id)
			if err != nil {
				s.unasked[id] = time.Now().Add(min(askAgain, c.lifetime()/20))
			}
			return 0
		})
	}
}

// askWithin is askRenewal, but a CA that is silent does not hold up a renewal for
// long, since nothing else is done about the certificate meanwhile.
func (m *Manager) askWithin(ctx context.Context, c *Managed) (*Managed, error) {
	ctx, cancel := context.WithTimeout(ctx, c.lifetime()/20)
	defer cancel()
	answered, err := m.askRenewal(ctx, c)
	if answered != nil && err != nil { // it is written down when to ask again
		m.logger.Warn("a CA does not say when to renew", "managed_id", c.ID, "issuer", c.issuedBy(), "error", err)
		return answered, nil
	}
	return answered, err
}

// askAll asks what is to be asked by now, until the given time if that is not
// zero. What is not answered is logged, and asked in the next pass.
func (s *scheduler) askAll(until time.Time) error {
	var list []*Managed
	for _, c := range s.known { // nobody else works on s
		by := c.issuedBy()
		if c.Removed || c.Pause != nil || c.Certificate == nil || s.set == nil || !s.set.informs[by] || s.paused[by] {
			continue
		}
		if at, _ := c.askAt(); !at.After(time.Now()) {
			list = append(list, c)
		}
	}
	answers := make([]*Managed, len(list))
	index := make(map[*Managed]int)
	for i, c := range list {
		index[c] = i
	}
	err := each(s.ctx, list, func(c *Managed) error {
		if !until.IsZero() && !time.Now().Before(until) {
			return nil
		}
		answer, err := s.ask(s.ctx, c)
		if err != nil {
			s.m.logger.Warn("a CA does not say when to renew", "managed_id", c.ID, "issuer", c.issuedBy(), "error", err)
			return nil
		}
		answers[index[c]] = answer
		return nil
	})
	for _, c := range answers {
		if c != nil {
			s.known[c.ID] = c
		}
	}
	return err
}
