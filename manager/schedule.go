// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/schedule"
)

const (
	// maxHold is after how long a certificate is looked at again that is held.
	maxHold = 24 * time.Hour
	// inDanger is when a certificate is in danger however long it lived: seven daily
	// attempts are left.
	inDanger = 7 * 24 * time.Hour
)

// rules are what the newest generation, which is there, is judged by. What was
// brought along has been of use since it began, and what was made after its end
// was made by a clock that is wrong.
func (c *Managed) rules() schedule.Certificate {
	r := schedule.Certificate{From: c.Certificate.NotBefore, End: c.Certificate.NotAfter}
	if c.Issued.After(r.From) && c.Issued.Before(r.End) && c.madeFor() != event.ReasonImported {
		r.From = c.Issued
	}
	return r
}

// seeded are rules with what their jitter depends on.
func (c *Managed) seeded() schedule.Certificate {
	r := c.rules()
	r.Seed = c.ID + " " + c.Version.String()
	return r
}

// lifetime is how long the newest generation is, or was, of use: from when it
// was made, since the validity before that is for slow clocks only.
func (c *Managed) lifetime() time.Duration { return c.rules().Life() }

// newest returns the record of the newest generation, and whether there is one.
func (c *Managed) newest() (event.Record, bool) {
	if c.Certificate == nil || len(c.History) == 0 {
		return event.Record{}, false
	}
	r := c.History[len(c.History)-1]
	return r, r.Version == c.Version
}

// madeFor returns why the newest generation was made; "" if there is none.
func (c *Managed) madeFor() string {
	r, _ := c.newest()
	return r.Reason
}

// A Cause is what decides when the next generation is due.
type Cause string

// The causes. CausePause, CauseHold and CauseClaim only ever postpone what another
// one wants.
const (
	CauseRemoved Cause = "removed" // never
	CauseFailure Cause = "failure" // when the back-off ends, or the CA wants to be asked again
	CauseNew     Cause = "new"     // there is no generation yet
	CauseMark    Cause = "mark"    // somebody wants it anew
	CauseWindow  Cause = "window"  // the CA said when (RFC 9773)
	CauseRule    Cause = "rule"    // its lifetime, or renew_before
	CauseHold    Cause = "hold"    // the issuer's budget is used up
	CausePause   Cause = "pause"   // it is paused, or its issuer is
	CauseClaim   Cause = "claim"   // a manager is at it
)

// RenewAt returns when the next generation is due: at once before the first
// one, after a failure when the back-off ends, at once if it is marked, else when
// its CA says or by its lifetime, less a jitter that depends on id and generation
// only, and never before a budget that is used up allows it. It is the zero Time
// for a removed certificate. That it is paused, or its issuer is, does not count
// here: see [Manager.Explain].
func (c *Managed) RenewAt() time.Time {
	at, _ := c.planned()
	return at
}

// planned is RenewAt and what decides it.
func (c *Managed) planned() (at time.Time, cause Cause) {
	at, cause = c.wanted()
	if c.Hold == nil || c.Removed {
		return at, cause
	}
	if until := c.heldUntil(); until.After(at) {
		return until, CauseHold
	}
	return at, cause
}

// wanted is when the next generation would be due if no budget were used up.
func (c *Managed) wanted() (time.Time, Cause) {
	switch {
	case c.Removed:
		return time.Time{}, CauseRemoved
	case c.Failure != nil:
		return c.retryAt(), CauseFailure
	case c.Certificate == nil:
		return c.soonest(c.Spec.Created, 0), CauseNew
	case c.Mark != nil:
		return c.soonest(c.Mark.At, 0), CauseMark
	}
	return c.regular()
}

// regular is when a generation is due of which nothing is wrong: when the CA
// says, if it does, else by rule. A renew_before that is earlier goes before what
// the CA says.
func (c *Managed) regular() (time.Time, Cause) {
	rule, w := c.rule(), c.window()
	if w == nil {
		return rule, CauseRule
	}
	r := c.seeded()
	if c.madeFor() != event.ReasonCA { // a CA that always wants another one is not heard so soon
		r.Least = schedule.RecallAfter
	}
	at := r.Within(w.Start, w.End)
	if c.Spec.RenewBefore != "" && rule.Before(at) {
		return rule, CauseRule
	}
	return at, CauseWindow
}

// rule is when the newest generation is due by the spec's time before its end, or
// that of the rule.
func (c *Managed) rule() time.Time {
	before, err := config.ParseRenewBefore(c.Spec.RenewBefore)
	if err != nil { // Make refuses such a spec; the rule stands in
		before = config.RenewBefore{}
	}
	return c.seeded().Due(before.Of(c.lifetime()))
}

// window is what the CA of the newest generation says of when to renew it; nil if
// it does not.
func (c *Managed) window() *event.Renewal {
	w := c.Renewal
	if c.Certificate == nil || w == nil || w.Generation != c.Generation || w.Start.IsZero() || w.End.Before(w.Start) {
		return nil
	}
	return w
}

// recalled reports whether the CA wants the newest generation replaced before
// anything else would: it is about to revoke it, or has done so.
func (c *Managed) recalled() bool {
	w := c.window()
	return w != nil && w.End.Before(c.rule())
}

// retryAt is when the next attempt follows one that failed. That a CA wants not
// to be asked does not keep another from being asked that can stand in, where
// waiting would end in danger.
func (c *Managed) retryAt() time.Time {
	f := c.Failure
	wait := min(max(0, f.Next.Sub(f.At)), schedule.MaxRetry)
	if c.shunned(f.Issuer) {
		wait = min(wait, c.retryAfter(max(1, f.Attempts), f.At))
	}
	return c.soonest(f.At.Add(wait), wait)
}

// heldUntil is when the budget of a certificate that is held is looked at again:
// when it allows the next order, or, once, when the certificate is in danger, and
// at the last when it does not count any more.
func (c *Managed) heldUntil() time.Time {
	until := c.soonest(c.Hold.Until, maxHold)
	if c.Certificate == nil {
		return until
	}
	latest := c.danger()
	if c.Changed.After(latest) {
		latest = c.last()
	}
	return sooner(until, latest)
}

// danger is from when on little is left of the newest generation, and last from
// when on next to nothing is: a tenth and a twentieth of its lifetime, at most a
// week and half of it.
func (c *Managed) danger() time.Time { return later(c.rules().Danger(), c.end().Add(-inDanger)) }
func (c *Managed) last() time.Time   { return later(c.rules().Last(), c.end().Add(-inDanger/2)) }

// soonest is a time that another machine wrote down, but no later than the wait
// that it meant, counted from when it was seen here: its clock may be years
// ahead.
func (c *Managed) soonest(at time.Time, wait time.Duration) time.Time {
	if own := c.Seen.Add(wait); !c.Seen.IsZero() && at.After(own) {
		return own
	}
	return at
}

// claimLapse is ClaimLapse, or a sixth of the lifetime where that is shorter: a
// claim whose manager died must not outlast a certificate of minutes.
func (c *Managed) claimLapse() time.Duration {
	life := c.Spec.Lifetime
	if c.Certificate != nil {
		life = c.lifetime()
	}
	if life <= 0 {
		return ClaimLapse
	}
	return min(ClaimLapse, life/6)
}

// retryAfter is how long to wait after the given number of failures.
func (c *Managed) retryAfter(failures uint64, now time.Time) time.Duration {
	if c.Certificate == nil {
		return schedule.Backoff(failures)
	}
	return c.rules().Retry(failures, now)
}
