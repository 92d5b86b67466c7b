// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/config"
)

// jitterShare is the part of a lifetime over which renewals are spread: one
// fiftieth. Certificates made together are not renewed together.
const jitterShare = 50

// backoff is how long to wait after the first, second and third failure in a
// row, and after any further one: the schedule that Let's Encrypt's integration
// guide asks for.
var backoff = []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, 24 * time.Hour}

// minRetry is the shortest wait after a failure.
const minRetry = 5 * time.Second

// lifetime is how long the newest generation is, or was, of use: from when it
// was made, since the validity before that is for slow clocks only.
func (c *Managed) lifetime() time.Duration {
	from := c.Certificate.NotBefore
	if c.Issued.After(from) {
		from = c.Issued
	}
	return c.Certificate.NotAfter.Sub(from)
}

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
		return c.soonest(c.Failure.Next, min(max(0, c.Failure.Next.Sub(c.Failure.At)), backoff[len(backoff)-1]))
	case c.Certificate == nil:
		return c.soonest(c.Spec.Created, 0)
	case c.Mark != nil:
		return c.soonest(c.Mark.At, 0)
	}
	before, err := config.ParseRenewBefore(c.Spec.RenewBefore)
	if err != nil { // Make refuses such a spec; the rule stands in
		before = config.RenewBefore{}
	}
	life := c.lifetime()
	least := max(life/jitterShare, MinLifetime/4)
	return c.Certificate.NotAfter.Add(-min(before.Of(life)+c.jitter(life), life-least))
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

func (c *Managed) jitter(life time.Duration) time.Duration {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %s", c.ID, c.Version))
	share := life / jitterShare
	if share <= 0 {
		return 0
	}
	return time.Duration(binary.BigEndian.Uint64(h[:]) % uint64(share))
}

// retryAfter is how long to wait after the given number of failures: the
// back-off, but not longer than a quarter of the time that is left, nor shorter
// than a hundredth of the lifetime. So a certificate of minutes is retried in
// seconds, and one of months is never retried in a loop.
func (c *Managed) retryAfter(failures uint64, now time.Time) time.Duration {
	wait := backoff[min(failures, uint64(len(backoff)))-1]
	if c.Certificate == nil {
		return wait
	}
	left := c.Certificate.NotAfter.Sub(now)
	return max(minRetry, min(wait, max(left/4, c.lifetime()/100)))
}
