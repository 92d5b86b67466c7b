// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// sight notes when a claim was first seen as it is.
func (m *Manager) sight(c *Managed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Claim == nil {
		delete(m.seen, c.ID)
		return
	}
	if m.seen[c.ID].at != c.Position {
		m.seen[c.ID] = sighting{c.Position, time.Now()}
	}
}

// claimed returns how long a claim on the next generation still has to be
// respected; 0 if there is none.
func (m *Manager) claimed(c *Managed) time.Duration {
	if c.Claim == nil || c.Claim.Generation <= c.Generation {
		return 0
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Claim.Owner == m.instance && (c.Claim.Boot != m.boot || m.mine[c.ID] == 0) {
		return 0 // an earlier run's, or an attempt's that ended without being able to say so
	}
	seen := m.seen[c.ID]
	if seen.at != c.Position {
		return c.claimLapse()
	}
	return max(0, c.claimLapse()-time.Since(seen.since))
}

// working marks that this manager is making a generation of id, until the
// returned function is called.
func (m *Manager) working(id string) (done func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mine[id]++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.mine[id]--; m.mine[id] == 0 {
			delete(m.mine, id)
		}
	}
}

// claim takes the next generation of c. The error may be a conflict.
func (m *Manager) claim(ctx context.Context, c *Managed, reason string) (*Managed, error) {
	next := *c
	next.Claim = &event.Claim{
		Generation: c.Generation + 1, Owner: m.instance, Boot: m.boot, Reason: reason, At: time.Now(),
	}
	at, err := m.append(ctx, c.Position, &next.State)
	if err != nil {
		return nil, err
	}
	next.Position = at
	m.sight(&next)
	return &next, nil
}

// keep runs work, and meanwhile renews the claim, so that it does not lapse
// while the issuer takes its time. It returns the claim as it stands then. If
// another manager has taken it, work's context ends, and the error is the
// conflict.
func (m *Manager) keep(ctx context.Context, c *Managed, work func(context.Context) error) (*Managed, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, kept := make(chan struct{}), make(chan struct{})
	latest := c // this and the next two are the goroutine's until kept is closed
	var lost error
	unanswered := false // the last renewal may have been written
	go func() {
		defer close(kept)
		tick := time.NewTicker(c.claimLapse() / 4)
		defer tick.Stop()
		for lost == nil {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			next := *latest
			next.Claim = new(event.Claim)
			*next.Claim = *latest.Claim
			next.Claim.At = time.Now()
			within, done := context.WithTimeout(ctx, c.claimLapse()/4)
			at, err := m.append(within, latest.Position, &next.State)
			done()
			unanswered = err != nil && !conflict(err)
			switch {
			case err == nil:
				next.Position = at
				latest = &next
				m.sight(latest)
			case conflict(err):
				if latest, lost = m.settle(ctx, latest, err); lost != nil {
					cancel()
				}
			}
		}
	}()
	err := work(ctx)
	close(stop)
	<-kept
	if unanswered && lost == nil {
		latest, lost = m.settle(ctx, latest, nil)
	}
	return latest, cmp.Or(lost, err)
}

// settle finds out whether a claim is still this manager's after a renewal of
// it that may have been written without an answer. If it is not, or cannot be
// asked for, or the certificate was marked meanwhile, the error is the given
// one.
func (m *Manager) settle(ctx context.Context, c *Managed, otherwise error) (*Managed, error) {
	now, err := m.Get(ctx, c.ID)
	if err != nil || now.Generation != c.Generation || now.Claim == nil || !sameMark(now, c) ||
		now.Claim.Owner != m.instance || now.Claim.Boot != m.boot || now.Claim.Generation != c.Claim.Generation {
		return c, otherwise
	}
	return now, nil
}

// wait returns when the state of c has changed, or its claim lapses.
func (m *Manager) wait(ctx context.Context, c *Managed) error {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, m.claimed(c)+time.Millisecond)
	defer cancel()
	for u, err := range m.log.Follow(ctx, event.StateKey(c.ID), c.Position) {
		if err != nil {
			if ctx.Err() != nil && outer.Err() == nil {
				return nil // lapsed
			}
			return err
		}
		if !u.CaughtUp && u.Position != c.Position {
			return nil
		}
	}
	return outer.Err()
}

// newest returns the entry's position under a key, zero if there is none.
func (m *Manager) newest(ctx context.Context, key string) (bus.Entry, error) {
	entry, err := m.log.Get(ctx, key)
	if isNotFound(err) {
		return bus.Entry{Key: key}, nil
	}
	return entry, err
}
