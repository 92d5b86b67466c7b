// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
)

// An Explanation says when the next generation of a certificate is made, and why
// then.
type Explanation struct {
	// Due says that it would be made now, if a manager runs.
	Due bool
	// At is when it will be due, or has been since; zero if it will not, or not
	// before somebody does something.
	At    time.Time
	Cause Cause
	// Why is what Cause says, in one sentence without a full stop.
	Why string
	// Issuer is who will be asked.
	Issuer string
	// Start, End and URL are what the CA said of when to renew, and where it says
	// why; zero if it said nothing.
	Start, End time.Time
	URL        string
}

// An Explainer explains certificates by what the bus says of the rest at its
// beginning, so that a list costs few reads. It is for one goroutine.
type Explainer struct {
	ctx    context.Context
	m      *Manager
	after  int                     // failures until the next issuer is asked
	pauses map[string]*event.Pause // by issuer; nil where there is none
}

// NewExplainer returns an Explainer, which is good until ctx ends.
func (m *Manager) NewExplainer(ctx context.Context) *Explainer {
	e := &Explainer{ctx: ctx, m: m, pauses: make(map[string]*event.Pause)}
	if set, err := m.settings(ctx); err == nil {
		e.after = set.after
	}
	return e
}

// paused returns the pause of an issuer; nil if it has none.
func (x *Explainer) paused(issuer string) *event.Pause {
	pause, known := x.pauses[issuer]
	if !known {
		if control, _, err := x.m.control(x.ctx, issuer); err == nil {
			pause = control.Pause
		}
		x.pauses[issuer] = pause
	}
	return pause
}

// Explain says when the next generation of c is made, and why. What it cannot
// read of the bus it does not count: c alone says the most.
func (x *Explainer) Explain(c *Managed) Explanation {
	e := Explanation{Issuer: c.asks(x.after)}
	e.At, e.Cause = c.planned()
	if w := c.window(); w != nil {
		e.Start, e.End, e.URL = w.Start, w.End, w.Explanation
	}
	now := time.Now()
	e.Due = !c.Removed && !e.At.After(now)
	e.Why = c.tell(e.Cause, now)
	switch {
	case c.Removed:
		return e
	case c.Pause != nil:
		return e.paused(fmt.Sprintf("it has been paused since %s%s", stamp(c.Pause.At), because(c.Pause)))
	case c.Claim != nil && c.Claim.Generation > c.Generation:
		e.Due, e.Cause = false, CauseClaim
		e.Why = fmt.Sprintf("a manager has been making generation %d since %s", c.Claim.Generation, stamp(c.Claim.At))
		return e
	}
	if pause := x.paused(e.Issuer); pause != nil {
		return e.paused(fmt.Sprintf("issuer %q has been paused since %s%s", e.Issuer, stamp(pause.At), because(pause)))
	}
	return e
}

func (e Explanation) paused(why string) Explanation {
	e.Due, e.At, e.Cause, e.Why = false, time.Time{}, CausePause, why
	return e
}

// tell says what a cause is about.
func (c *Managed) tell(cause Cause, now time.Time) string {
	switch cause {
	case CauseRemoved:
		return "it was removed"
	case CauseFailure:
		f := c.Failure
		from, next := "", "the back-off ends then"
		if f.Issuer != "" {
			from = fmt.Sprintf(" at issuer %q", f.Issuer)
		}
		if !f.RetryAfter.IsZero() && f.RetryAfter.After(f.At) && !c.shunned(f.Issuer) {
			next = fmt.Sprintf("the CA wants not to be asked before %s", stamp(f.RetryAfter))
		}
		return fmt.Sprintf("attempt %d failed%s, and %s", f.Attempts, from, next)
	case CauseNew:
		return "there is no generation yet"
	case CauseMark:
		return "it is marked: " + c.Mark.Reason
	case CauseWindow:
		if c.recalled() && c.Renewal.End.Before(now) {
			return "the CA wants it replaced at once"
		}
		return fmt.Sprintf("the CA suggests a time from %s to %s", stamp(c.Renewal.Start), stamp(c.Renewal.End))
	case CauseHold:
		return fmt.Sprintf("%s, until %s", c.Hold.Reason, stamp(c.Hold.Until))
	}
	if before, err := config.ParseRenewBefore(c.Spec.RenewBefore); err == nil && !before.IsZero() && before.Of(c.lifetime()) != (config.RenewBefore{}).Of(c.lifetime()) {
		return fmt.Sprintf("renew_before is %s", before)
	}
	if c.lifetime() < 10*24*time.Hour {
		return "half of its lifetime is over then"
	}
	return "a third of its lifetime is left then"
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
