// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/schedule"
	"github.com/keyturn/keyturn/issuer"
)

// failed gives the claim up and notes the failure, so that the schedule waits.
// An attempt that was called off is no failure: it only gives the claim up. An
// order that can still become a certificate stays.
func (m *Manager) failed(ctx context.Context, c *Managed, asked string, cause error) error {
	calledOff := ctx.Err() != nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for {
		next := *c
		next.Claim = nil
		if dropped(cause) || !calledOff && c.expired() {
			next.Order = nil
		}
		next.Order = stands(next.Order, cause)
		if !calledOff {
			next.Failure = c.failure(asked, cause)
		}
		_, err := m.append(ctx, c.Position, &next.State)
		if conflict(err) { // perhaps by what touches no claim, such as a pause
			if c, err = m.settle(ctx, c, err); err == nil {
				continue
			}
			return nil
		}
		crash.Point(crash.FailureNoted)
		if f := next.Failure; !calledOff {
			m.logger.Error("certificate could not be renewed", "managed_id", c.ID, "attempt", f.Attempts, "retry_in", f.Next.Sub(f.At).Round(time.Second).String(), "error", cause)
		}
		if err != nil {
			return fmt.Errorf("the failure could not be noted: %w", err)
		}
		if !calledOff {
			m.drawFailures(ctx, asked, next.unproven())
		}
		return nil
	}
}

// failure is what is noted of an attempt that failed.
func (c *Managed) failure(asked string, cause error) *event.Failure {
	now := time.Now()
	n := c.failures() + 1
	f := &event.Failure{
		At: now, Attempts: n, Next: now.Add(c.retryAfter(n, now)),
		Message: bounded(cause.Error()), Issuer: asked,
	}
	if after, ok := issuer.RetryAfter(cause); ok {
		f.RetryAfter = after
		// Once a day every CA can be asked, whatever it says: one that says a year would
		// end the certificate.
		if most := now.Add(schedule.MaxRetry); after.After(most) {
			after = most
		}
		f.Next = later(f.Next, after)
	}
	var order *issuer.OrderError
	if errors.As(cause, &order) {
		f.Order = order.URL
	}
	var said *issuer.Problem
	if errors.As(cause, &said) {
		f.Problem = problem(said)
	}
	f.Fit()
	return f
}

// problem is what a CA said, as it is kept.
func problem(p *issuer.Problem) *event.Problem {
	out := &event.Problem{
		Type: p.Type, Title: p.Title, Detail: p.Detail, Instance: p.Instance,
		Status: uint64(max(0, p.Status)), Name: p.Name,
	}
	for i := range p.Parts {
		out.Parts = append(out.Parts, *problem(&p.Parts[i]))
	}
	return out
}

// bounded keeps the start of a CA's long answer, in whole characters.
func bounded(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + " …"
}
