// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
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
			made, err := m.attempt(ctx, c, reason)
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

// attempt claims, issues and publishes the next generation. The error is a
// conflict if another manager came in between.
//
// What keeps the bus from being read is no failure of the certificate: it is
// returned before anything is claimed, and nothing is noted.
func (m *Manager) attempt(ctx context.Context, c *Managed, reason string) (*Managed, error) {
	reason = c.why(reason)
	var gone *busError
	means, unfit := m.prepare(ctx, &c.Spec)
	if errors.As(unfit, &gone) || ctx.Err() != nil {
		return nil, cmp.Or(unfit, ctx.Err())
	}
	defer m.working(c.ID)()
	claimed, err := m.claim(ctx, c, reason)
	if err != nil {
		return nil, err
	}
	m.progress(c.ID, fmt.Sprintf("generation %d is claimed; asking issuer %q", claimed.Claim.Generation, c.Spec.Issuer))
	var cert *event.Certificate
	var leaf *x509.Certificate
	if err = unfit; err == nil {
		claimed, err = m.keep(ctx, claimed, func(ctx context.Context) (err error) {
			cert, leaf, err = m.issue(ctx, claimed, means)
			return err
		})
	}
	if conflict(err) {
		return nil, err // another manager has taken the claim
	}
	if err != nil {
		err = fmt.Errorf("generation %d of %s (%s): %w", claimed.Claim.Generation, c.ID, short(c.Spec.Names), err)
		return nil, errors.Join(err, m.failed(ctx, claimed, err))
	}
	done, err := m.commit(ctx, claimed, cert, event.Record{
		At: time.Now(), Reason: reason, Issuer: c.Spec.Issuer, Serial: leaf.SerialNumber.Bytes(), NotAfter: leaf.NotAfter,
	})
	if err != nil {
		return nil, err
	}
	m.progress(c.ID, fmt.Sprintf("generation %d is committed, serial %x", done.Generation, leaf.SerialNumber.Bytes()))
	if err := m.copy(ctx, done); err != nil {
		return nil, fmt.Errorf("publishing generation %d of %s: %w", done.Generation, c.ID, err)
	}
	m.logger.Info("certificate is published", "managed_id", c.ID, "version", done.Version.String(),
		"names", c.Spec.Names, "issuer", c.Spec.Issuer, "reason", reason, "serial", fmt.Sprintf("%x", leaf.SerialNumber.Bytes()), "not_after", leaf.NotAfter)
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
	data, err := event.Sign(m.identity.Signing, m.tenant, r.At, cert)
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

// failed gives the claim up and notes the failure, so that the schedule waits.
// An attempt that was called off is no failure: it only gives the claim up.
func (m *Manager) failed(ctx context.Context, c *Managed, cause error) error {
	calledOff := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	next := *c
	next.Claim = nil
	if !calledOff {
		now := time.Now()
		n := c.failures() + 1
		wait := c.retryAfter(n, now)
		next.Failure = &event.Failure{At: now, Attempts: n, Next: now.Add(wait), Message: bounded(cause.Error())}
		m.logger.Error("certificate could not be renewed", "managed_id", c.ID, "attempt", n, "retry_in", wait.Round(time.Second).String(), "error", cause)
	}
	if _, err := m.append(ctx, c.Position, &next.State); err != nil && !conflict(err) {
		return fmt.Errorf("the failure could not be noted: %w", err)
	}
	return nil
}

// bounded keeps the start of a CA's long answer, in whole characters.
func bounded(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}

// copy makes the group's entry what the state says, unless it is that or newer
// already.
func (m *Manager) copy(ctx context.Context, c *Managed) error {
	key := event.CertificateKey(c.Spec.Group, c.ID)
	for {
		// The copy first and the state second: a state that changes afterwards is
		// copied by whoever changed it, and then this append conflicts.
		old, err := m.newest(ctx, key)
		if err != nil {
			return err
		}
		if c, err = m.Get(ctx, c.ID); err != nil {
			return err
		}
		if len(c.Current) == 0 || !m.copied(ctx, key, old).Less(c.Version) {
			return nil
		}
		if _, err := m.log.Append(ctx, key, old.Position, c.Current); !conflict(err) {
			return err
		}
	}
}

// copied returns the version of a group's entry; the zero Version if there is
// none that can be believed.
func (m *Manager) copied(ctx context.Context, key string, entry bus.Entry) event.Version {
	if len(entry.Data) == 0 {
		return event.Version{}
	}
	e, err := m.open(ctx, key, entry.Data)
	if err != nil {
		return event.Version{}
	}
	switch b := e.Body.(type) {
	case *event.Certificate:
		return b.Version
	case *event.Removal:
		return b.Version
	}
	return event.Version{}
}
