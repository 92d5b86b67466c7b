// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// A Change is what a managed certificate shall be from its next generation on. What
// is nil stays as it is.
type Change struct {
	// Issuers are whom it is asked of, and those that stand in, as in Request.
	Issuers []string
	// Challenge and Profile are those of Request: "" is the issuer's default.
	Challenge, Profile *string
}

// Change changes a managed certificate, which keeps its id and is served on. If
// another issuer, or another profile, is the first choice now, it is marked, as by
// [Manager.Mark], with event.ReasonChanged: whoever runs renews it next. A change to
// what it is already changes nothing.
//
// The error may be a *NotFoundError, a *RemovedError, or an *InvalidError: then
// nothing was changed.
func (m *Manager) Change(ctx context.Context, id string, to Change) (*Managed, error) {
	for {
		c, err := m.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		if c.Removed {
			return nil, &RemovedError{id}
		}
		next := *c
		next.Spec = to.apply(c.Spec)
		if sameSpec(&next.Spec, &c.Spec) {
			return c, nil
		}
		shared, _, err := m.shared(ctx)
		if err == nil {
			err = checkSpec(&next.Spec, shared)
		}
		if err != nil {
			return nil, err
		}
		if next.Spec.Issuer != c.Spec.Issuer || next.Spec.Profile != c.Spec.Profile {
			next.makeAnew(event.ReasonChanged)
		}
		next.Position, err = m.append(ctx, c.Position, &next.State)
		if conflict(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("changing %s: %w", id, err)
		}
		crash.Point(crash.Changed)
		m.logger.Info("certificate is changed", "managed_id", id, "names", next.Spec.Names,
			"issuers", next.issuers(), "challenge", next.Spec.Challenge, "profile", next.Spec.Profile)
		return &next, nil
	}
}

// apply returns a spec as it is to be.
func (to Change) apply(s event.Spec) event.Spec {
	if len(to.Issuers) > 0 {
		s.Issuer, s.Fallbacks = to.Issuers[0], to.Issuers[1:]
	}
	if to.Challenge != nil {
		s.Challenge = *to.Challenge
	}
	if to.Profile != nil {
		s.Profile = *to.Profile
	}
	return s
}

// makeAnew marks c, and drops what is known of attempts at what it was to be.
func (c *Managed) makeAnew(reason string) {
	if c.compromised() {
		reason = event.ReasonCompromised
	}
	c.Mark = &event.Mark{Reason: reason, At: time.Now()}
	c.Order, c.Failure, c.Hold = nil, nil, nil
}
