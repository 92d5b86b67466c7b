// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"sync"
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

// claim takes the next generation of c. An order that is under way stays only if
// it is gone on with. The error may be a conflict.
func (m *Manager) claim(ctx context.Context, c *Managed, reason string, goOn bool) (*Managed, error) {
	next := *c
	next.Claim = &event.Claim{
		Generation: c.Generation + 1, Owner: m.instance, Boot: m.boot, Reason: reason, At: time.Now(),
	}
	if !goOn {
		next.Order = nil
	}
	at, err := m.append(ctx, c.Position, &next.State)
	if err != nil {
		return nil, err
	}
	next.Position = at
	m.sight(&next)
	return &next, nil
}

// A keeper renews a claim while its generation is being made, and writes what
// becomes known meanwhile.
type keeper struct {
	m      *Manager
	cancel context.CancelFunc // ends the work

	mu         sync.Mutex
	latest     *Managed // guarded by mu; the claim as it stands
	lost       error    // guarded by mu; the conflict by which another manager took it
	unanswered bool     // guarded by mu; the last append may have been written
}

// keep runs work, and meanwhile renews the claim, so that it does not lapse
// while the issuer takes its time. It returns the claim as it stands then. If
// another manager has taken it, work's context ends, and the error is the
// conflict.
func (m *Manager) keep(ctx context.Context, c *Managed, work func(context.Context, *keeper) error) (*Managed, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := &keeper{m: m, cancel: cancel, latest: c}
	stop, kept := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(kept)
		tick := time.NewTicker(c.claimLapse() / 4)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			within, done := context.WithTimeout(ctx, c.claimLapse()/4)
			err := k.write(within, func(*event.State) {})
			done()
			if conflict(err) {
				return
			}
		}
	}()
	err := work(ctx, k)
	close(stop)
	<-kept
	return k.end(ctx, err)
}

// write renews the claim, and has change make the state what it is to be
// besides. If another manager has taken the claim, the error is the conflict,
// now and ever after.
func (k *keeper) write(ctx context.Context, change func(*event.State)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.lost == nil {
		next := *k.latest
		claim := *k.latest.Claim
		claim.At = time.Now()
		next.Claim = &claim
		change(&next.State)
		at, err := k.m.append(ctx, k.latest.Position, &next.State)
		k.unanswered = err != nil && !conflict(err)
		switch {
		case err == nil:
			next.Position = at
			k.latest = &next
			k.m.sight(k.latest)
			return nil
		case !conflict(err):
			return err
		}
		if k.latest, k.lost = k.m.settle(ctx, k.latest, err); k.lost != nil {
			k.cancel()
		}
	}
	return k.lost
}

// now returns the claim as it stands.
func (k *keeper) now() *Managed {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.latest
}

// end returns the claim as it stands, and why the generation cannot be gone on
// with, if so.
func (k *keeper) end(ctx context.Context, err error) (*Managed, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unanswered && k.lost == nil {
		k.latest, k.lost = k.m.settle(ctx, k.latest, nil)
	}
	return k.latest, cmp.Or(k.lost, err)
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
	entry, err := m.get(ctx, key)
	if isNotFound(err) {
		return bus.Entry{Key: key}, nil
	}
	return entry, err
}
