// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
)

const (
	// afterSilence is after how long a CA is asked again that could not be, or gave no
	// usable answer (RFC 9773 section 4.3.3).
	afterSilence = 6 * time.Hour
	// askUnable is after how long a CA is asked again that never says when to renew:
	// it may have learnt it.
	askUnable = 24 * time.Hour
	// askTimeout bounds one question.
	askTimeout = time.Minute
)

// askRenewal asks the CA of the newest generation of c when it wants that renewed
// (RFC 9773), and writes the answer down. What the CA said before stays where it
// cannot be asked: then the error says why, and the state returned beside it when
// to ask again. The error is issuer.ErrNoRenewalInfo, and nothing is written, where
// there is nobody who could ever be asked. It may be a conflict.
func (m *Manager) askRenewal(ctx context.Context, c *Managed) (*Managed, error) {
	informer, err := m.informer(ctx, c)
	if err != nil {
		return nil, err
	}
	leaf, err := c.Leaf()
	if err != nil {
		return nil, fmt.Errorf("asking when to renew %s: %w", c.ID, err)
	}
	within, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	info, asking := informer.RenewalInfo(within, leaf)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	next := *c
	next.Renewal = c.answer(info, asking)
	at, err := m.append(ctx, c.Position, &next.State)
	if err != nil {
		return nil, err
	}
	next.Position, next.Changed, next.Seen = at, next.Renewal.Asked, time.Now()
	switch {
	case errors.Is(asking, issuer.ErrNoRenewalInfo):
		asking = nil // an answer, too
	case asking != nil:
		asking = fmt.Errorf("asking when to renew %s: %w", c.ID, asking)
	}
	return &next, asking
}

// informer returns whom to ask about the newest generation of c. The error may be
// issuer.ErrNoRenewalInfo.
func (m *Manager) informer(ctx context.Context, c *Managed) (issuer.RenewalInformer, error) {
	name := c.issuedBy()
	if name == "" {
		return nil, issuer.ErrNoRenewalInfo
	}
	i, err := m.issuer(ctx, name)
	if err != nil {
		return nil, err
	}
	informer, ok := i.(issuer.RenewalInformer)
	if !ok {
		return nil, issuer.ErrNoRenewalInfo
	}
	return informer, nil
}

// answer is what is kept of a CA's answer, or of there being none.
func (c *Managed) answer(info issuer.RenewalInfo, err error) *event.Renewal {
	now := time.Now()
	r := &event.Renewal{Generation: c.Generation, Asked: now}
	switch {
	case err == nil:
		r.Start, r.End, r.Explanation, r.Next = info.Start, info.End, info.Explanation, now.Add(info.Poll)
	case errors.Is(err, issuer.ErrNoRenewalInfo):
		r.Next = now.Add(askUnable)
	default:
		if c.Renewal != nil && c.Renewal.Generation == c.Generation {
			*r = *c.Renewal
			r.Asked = now
		}
		r.Next = now.Add(afterSilence)
		if after, ok := issuer.RetryAfter(err); ok {
			r.Next = later(r.Next, after)
		}
	}
	r.Fit()
	return r
}
