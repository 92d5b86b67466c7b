// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/schedule"
)

// rules are what the newest generation, which is there, is judged by.
func (c *Managed) rules() schedule.Certificate {
	r := schedule.Certificate{From: c.Certificate.NotBefore, End: c.Certificate.NotAfter, Seed: fmt.Sprintf("%s %s", c.ID, c.Version)}
	if c.Issued.After(r.From) {
		r.From = c.Issued
	}
	return r
}

// lifetime is how long the newest generation is, or was, of use: from when it
// was made, since the validity before that is for slow clocks only.
func (c *Managed) lifetime() time.Duration { return c.rules().Life() }

// RenewAt returns when the next generation is due: at once before the first
// one, after a failure when the back-off ends, at once if it is marked, else the
// spec's time, or that of the rule, before the end, less a jitter that depends
// on id and generation only, and never before a fiftieth of the lifetime, or a
// second, is over: a renewal that is asked for at once after the last would
// never end. It is the zero Time for a removed certificate.
func (c *Managed) RenewAt() time.Time {
	switch {
	case c.Removed:
		return time.Time{}
	case c.Failure != nil:
		return c.soonest(c.Failure.Next, min(max(0, c.Failure.Next.Sub(c.Failure.At)), schedule.MaxRetry))
	case c.Certificate == nil:
		return c.soonest(c.Spec.Created, 0)
	case c.Mark != nil:
		return c.soonest(c.Mark.At, 0)
	}
	before, err := config.ParseRenewBefore(c.Spec.RenewBefore)
	if err != nil { // Make refuses such a spec; the rule stands in
		before = config.RenewBefore{}
	}
	return c.rules().Due(before.Of(c.lifetime()))
}

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
