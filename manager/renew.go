// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

func isNotFound(err error) bool { return errors.Is(err, bus.ErrNotFound) }

// Renew makes the next generation of a managed certificate, whether it is due
// or not: the same names, issuer and key type, a new key. If another manager is
// at it, Renew waits for that one's generation and returns it. The reason is
// one of event's; in the history of a marked certificate, the mark's stands in
// its place, unless it is event.ReasonCompromised. When it returns, the generation is on the bus for its group.
//
// The error may be a *NotFoundError, a *RemovedError, an *InvalidError, or what
// the issuer said; a failed attempt is noted in the state.
func (m *Manager) Renew(ctx context.Context, id, reason string) (*Managed, error) {
	c, err := m.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return m.renewFrom(ctx, c, c.Generation+1, reason)
}

// renewFrom returns generation want of c, or a later one, making it if nobody
// else does.
func (m *Manager) renewFrom(ctx context.Context, c *Managed, want uint64, reason string) (*Managed, error) {
	for {
		switch {
		case c.Removed:
			return nil, &RemovedError{c.ID}
		case c.Generation >= want:
			return c, m.copy(ctx, c)
		}
		failures := c.failures()
		waited := m.claimed(c) > 0
		if waited {
			m.progress(c.ID, fmt.Sprintf("another manager is making generation %d: waiting for it", want))
			if err := m.wait(ctx, c); err != nil {
				return nil, fmt.Errorf("waiting for generation %d of %s: %w", want, c.ID, err)
			}
		} else {
			made, err := m.renewBy(ctx, c, false, reason)
			if !conflict(err) {
				return made, err
			}
		}
		var err error
		if c, err = m.Get(ctx, c.ID); err != nil {
			return nil, err
		}
		if waited && c.failures() > failures {
			// Trying at once what has just failed would make one attempt of each
			// manager that waits.
			return nil, fmt.Errorf("the manager that was at it failed: %s", c.Failure.Message)
		}
	}
}

// failures is how many attempts failed since the newest generation.
func (c *Managed) failures() uint64 {
	if c.Failure == nil {
		return 0
	}
	return c.Failure.Attempts
}

// attempt claims, issues and publishes the next generation, by one issuer. The
// error is a conflict if another manager came in between.
//
// What keeps the bus from being read is no failure of the certificate, nor is a
// pause, or a budget that is used up: it is returned before anything is claimed,
// and nothing is noted.
func (m *Manager) attempt(ctx context.Context, c *Managed, asked string, n need, reason string) (*Managed, error) {
	reason = c.why(reason)
	ctx = asOf(ctx, c.Seen)
	m.readConf(ctx, asked)
	if err := m.paused(ctx, c, asked); err != nil {
		return nil, err
	}
	var gone *busError
	means, unfit := m.prepare(ctx, c, asked)
	if errors.As(unfit, &gone) || ctx.Err() != nil {
		return nil, cmp.Or(unfit, ctx.Err())
	}
	if unfit == nil {
		if err := m.draw(ctx, c, asked, n); err != nil {
			return nil, err
		}
	}
	crash.Point(crash.Drawn)
	defer m.working(c.ID)()
	draft := m.resumed(c, means.asked)
	if reason == event.ReasonCompromised && (c.Mark == nil || c.Mark.Reason != reason) {
		draft = nil // who knows the key that is served may know the order's, too; such a mark has dropped it already
	}
	claimed, err := m.claim(ctx, c, reason, draft != nil)
	if err != nil {
		m.giveBack(ctx, c, asked, n, unfit == nil)
		return nil, err
	}
	crash.Point(crash.Claimed)
	m.progress(c.ID, fmt.Sprintf("generation %d is claimed; asking issuer %q", claimed.Claim.Generation, means.asked))
	var made generation
	if err = unfit; err == nil {
		claimed, err = m.keep(ctx, claimed, func(ctx context.Context, k *keeper) (err error) {
			made, err = m.issue(ctx, k, means, draft)
			return err
		})
	}
	if err != nil {
		m.giveBack(ctx, c, asked, n, unfit == nil && made.order == "")
	}
	if conflict(err) {
		return nil, err // another manager has taken the claim
	}
	if err != nil {
		if c.Generation > 0 { // Make says of what it is the first
			err = fmt.Errorf("generation %d of %s (%s): %w", claimed.Claim.Generation, c.ID, short(c.Spec.Names), err)
		}
		return nil, errors.Join(err, m.failed(ctx, claimed, means.asked, err))
	}
	crash.Point(crash.Issued)
	return m.publish(ctx, claimed, made, event.Record{
		At: time.Now(), Reason: reason, Issuer: means.asked, Order: made.order,
		Serial: made.leaf.SerialNumber.Bytes(), NotAfter: made.leaf.NotAfter,
	})
}

// publish commits a claimed generation and copies it for its group. The error is
// a conflict if the claim was lost.
func (m *Manager) publish(ctx context.Context, c *Managed, made generation, r event.Record) (*Managed, error) {
	old := m.placeOf(c.ID) // before the commit: see copyOver
	done, err := m.commit(ctx, c, made.cert, r)
	for conflict(err) { // perhaps by what touches no claim, such as a pause
		if c, err = m.settle(ctx, c, err); err == nil {
			done, err = m.commit(ctx, c, made.cert, r)
		} else {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	crash.Point(crash.Committed)
	m.progress(c.ID, fmt.Sprintf("generation %d is committed, serial %x", done.Generation, r.Serial))
	if err := m.copyOver(ctx, old, done); err != nil {
		return nil, fmt.Errorf("publishing generation %d of %s: %w", done.Generation, c.ID, err)
	}
	crash.Point(crash.Published)
	m.logger.Info("certificate is published", "managed_id", c.ID, "version", done.Version.String(),
		"names", c.Spec.Names, "issuer", r.Issuer, "reason", r.Reason, "serial", fmt.Sprintf("%x", r.Serial), "not_after", r.NotAfter)
	return done, nil
}

// short prints a list of names that may be long.
func short(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
}

// commit appends the new generation to the state. The error may be a conflict.
func (m *Manager) commit(ctx context.Context, c *Managed, cert *event.Certificate, r event.Record) (*Managed, error) {
	data, err := m.sign(ctx, r.At, cert)
	if err != nil {
		return nil, err
	}
	next := *c
	next.Certificate, next.Issued = cert, r.At
	next.Failure = nil
	return m.turn(ctx, &next, cert.Version, data, r)
}

// turn appends the state with a new version, its event and its record.
func (m *Manager) turn(ctx context.Context, next *Managed, v event.Version, current []byte, r event.Record) (*Managed, error) {
	r.Version, r.Manager = v, m.identity.Signing.Public().ID()
	next.Version, next.Current, next.Claim, next.Mark = v, current, nil, nil
	next.Order, next.Hold, next.Renewal = nil, nil, nil
	keep := max(0, len(next.History)-event.MaxHistory+1)
	next.History = append(append([]event.Record(nil), next.History[keep:]...), r)
	next.Changed, next.Seen = r.At, time.Now()
	at, err := m.append(ctx, next.Position, &next.State)
	if err != nil {
		return nil, err
	}
	next.Position = at
	return next, nil
}
