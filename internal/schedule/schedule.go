// SPDX-License-Identifier: Apache-2.0

// Package schedule is when a certificate is renewed, when what failed is tried
// again, what comes first, and how often a CA may be asked: the rules alone,
// without clock or state, for managers and for servers that have none.
package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

const (
	// jitterShare is the part of a lifetime over which renewals are spread: one
	// fiftieth. Certificates made together are not renewed together.
	jitterShare = 50
	// marginShare is the part of a lifetime that is left at the end whatever the CA
	// suggests: one tenth, for the retries. A certificate that has less left is in
	// danger. With a twentieth, it is lost if nothing is done.
	marginShare = 10
	lastShare   = 20
	// least is the shortest wait between two generations.
	least = time.Second
	// short is the lifetime below which half of it is left, not a third.
	short = 10 * 24 * time.Hour
)

// backoff is how long to wait after the first, second and third failure in a
// row, and after any further one: the schedule that Let's Encrypt's integration
// guide asks for.
var backoff = []time.Duration{time.Minute, 10 * time.Minute, 100 * time.Minute, MaxRetry}

// RecallAfter is how long a certificate is kept that the CA wants replaced at once,
// unless the one before it was replaced for that: Certificate.Least. A CA that always
// wants another one is not heard so soon.
const RecallAfter = time.Hour

// MaxRetry is the longest wait after a failure, and MinRetry the shortest.
const (
	MaxRetry = 24 * time.Hour
	MinRetry = 5 * time.Second
)

// Before is the rule for how long before its end a certificate is renewed: a third
// of its lifetime, or half of it if that is under ten days.
func Before(life time.Duration) time.Duration {
	if life < short {
		return life / 2
	}
	return life / 3
}

// A Certificate is what the rules go by.
type Certificate struct {
	// From is since when it is of use: when it was made, since validity before that
	// is for slow clocks only. End is its end.
	From, End time.Time
	// Seed is what its jitter depends on: the same for everybody who looks at this
	// certificate, and another for the one that follows it.
	Seed string
	// Least is how long it is kept if the CA wants it replaced at once, if that is
	// shorter than a fiftieth of its lifetime; 0 is that fiftieth.
	Least time.Duration
}

// Life is how long it is of use.
func (c Certificate) Life() time.Duration { return c.End.Sub(c.From) }

// Danger is from when on it is in danger, and Last from when on next to nothing of
// its lifetime is left.
func (c Certificate) Danger() time.Time { return c.End.Add(-c.Life() / marginShare) }
func (c Certificate) Last() time.Time   { return c.End.Add(-c.Life() / lastShare) }

// Due is when the next one is due: before its end, less a jitter of up to a fiftieth
// of the lifetime, but never before a fiftieth of it, or a second, is over: a renewal
// that is asked for at once after the last would never end.
func (c Certificate) Due(before time.Duration) time.Time {
	life := c.Life()
	return c.notBefore(c.End.Add(-min(before+c.share(life/jitterShare), life)), 0)
}

// Within is when the next one is due if the CA suggests a window (RFC 9773 section
// 4.2): a time in it that depends on Seed, but with a tenth of the lifetime left. A
// window that is over is at once, for a certificate that is not quite new.
func (c Certificate) Within(start, end time.Time) time.Time {
	life := c.Life()
	if latest := c.Danger(); end.After(latest) {
		end = latest
		if !start.Before(end) {
			start = end.Add(-life / jitterShare) // all at once is what a window is there to prevent
		}
	}
	return c.notBefore(start.Add(c.share(end.Sub(start))), c.Least)
}

// notBefore is at, but not before a fiftieth of the lifetime is over, or what is
// kept if that is less and not 0, and not before a second.
func (c Certificate) notBefore(at time.Time, kept time.Duration) time.Time {
	wait := c.Life() / jitterShare
	if kept > 0 {
		wait = min(wait, kept)
	}
	if earliest := c.From.Add(max(wait, least)); at.Before(earliest) {
		return earliest
	}
	return at
}

// share is a part of within, less than all of it.
func (c Certificate) share(within time.Duration) time.Duration {
	if within <= 0 {
		return 0
	}
	h := sha256.Sum256([]byte(c.Seed))
	return time.Duration(binary.BigEndian.Uint64(h[:]) % uint64(within))
}

// Backoff is how long to wait after so many failures in a row, one or more: 1, 10,
// 100 minutes, then a day.
func Backoff(failures uint64) time.Duration {
	return backoff[min(failures, uint64(len(backoff)))-1]
}

// Retry is Backoff for a certificate that is there: not longer than a quarter of the
// time that is left, nor shorter than a hundredth of the lifetime. So a certificate of
// minutes is retried in seconds, and one of months is never retried in a loop.
func (c Certificate) Retry(failures uint64, now time.Time) time.Duration {
	return max(MinRetry, min(Backoff(failures), max(c.End.Sub(now)/4, c.Life()/100)))
}
