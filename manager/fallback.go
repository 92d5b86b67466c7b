// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyturn/keyturn/event"
)

// fallbackAfter is after how many failures in a row the next issuer is taken
// where the shared configuration does not say.
const fallbackAfter = 3

// issuers are all that the next generation can come from, the first choice
// first.
func (c *Managed) issuers() []string {
	return append([]string{c.Spec.Issuer}, c.Spec.Fallbacks...)
}

// issuedBy is whose certificate the newest generation is: the spec's issuer where
// the history does not say; "" where it was brought along, or there is none.
func (c *Managed) issuedBy() string {
	switch r, _ := c.newest(); {
	case c.Certificate == nil || r.Reason == event.ReasonImported:
		return ""
	case r.Issuer != "":
		return r.Issuer
	}
	return c.Spec.Issuer
}

// asks returns which issuer the next attempt asks: the spec's, then those that
// stand in, one after the other, each for after failures in a row, then from the
// start. One that wants to be left alone until the certificate is in danger is
// passed over. The first attempt after a success asks the first again.
//
// An order that is under way stays with its issuer, which may have signed
// already: only where the certificate is in danger another is asked.
func (c *Managed) asks(after int) string {
	list := c.issuers()
	if o := c.Order; o != nil && o.Generation == c.Generation+1 && slices.Contains(list, o.Issuer) && !c.shunned(o.Issuer) && !c.stuck(after) {
		return o.Issuer
	}
	if after <= 0 {
		after = fallbackAfter
	}
	i := int(c.failures() / uint64(after) % uint64(len(list)))
	if c.shunned(list[i]) {
		i = (i + 1) % len(list)
	}
	return list[i]
}

// stuck reports whether an order goes on to fail although the certificate is in
// danger, or there is none yet.
func (c *Managed) stuck(after int) bool {
	if after <= 0 {
		after = fallbackAfter
	}
	f := c.Failure
	return f != nil && f.Attempts >= uint64(after) && (c.Certificate == nil || f.At.After(c.danger()))
}

// shunned reports whether an issuer that failed wants not to be asked before the
// certificate is in danger, and another can stand in.
func (c *Managed) shunned(issuer string) bool {
	f := c.Failure
	return f != nil && f.Issuer == issuer && len(c.Spec.Fallbacks) > 0 && !f.RetryAfter.IsZero() &&
		(c.Certificate == nil || f.RetryAfter.After(c.danger()))
}

// standsIn returns which issuer can be asked in place of one whose budget is
// used up: the next one, unless that is where the asking began.
func (c *Managed) standsIn(issuer string, after int) (string, bool) {
	list := c.issuers()
	i := slices.Index(list, issuer)
	next := list[(i+1)%len(list)]
	return next, next != issuer && next != c.asks(after)
}

// scheduled makes the next generation by an issuer as the schedule does. A
// *HeldError says that it has to wait, and the state says so, too.
func (m *Manager) scheduled(ctx context.Context, c *Managed, issuer, reason string) (*Managed, error) {
	done, err := m.attempt(ctx, c, issuer, c.needs(issuer, true, time.Now()), reason)
	var held *HeldError
	if errors.As(err, &held) {
		m.hold(ctx, c, held)
	}
	return done, err
}

// renewBy makes the next generation by the issuer whose turn it is, or, where its
// budget is used up, by one that can stand in.
func (m *Manager) renewBy(ctx context.Context, c *Managed, scheduled bool, reason string) (*Managed, error) {
	ctx = asOf(ctx, c.Seen)
	after := fallbackAfter
	if set, err := m.settings(ctx); err == nil { // else the attempt says what is wrong
		after = set.after
	}
	asked := c.asks(after)
	for {
		var done *Managed
		var err error
		if scheduled {
			done, err = m.scheduled(ctx, c, asked, reason)
		} else {
			done, err = m.attempt(ctx, c, asked, c.needs(asked, false, time.Now()), reason)
		}
		var held *HeldError
		if !errors.As(err, &held) || held.Instead == "" {
			return done, err
		}
		asked = held.Instead
	}
}
