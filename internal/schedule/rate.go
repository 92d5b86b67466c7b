// SPDX-License-Identifier: Apache-2.0

package schedule

import "time"

// A Rate lets Count be drawn within Per, and then one more each time Per/Count
// has gone by: the generic cell rate algorithm, by which Let's Encrypt counts,
// too (https://letsencrypt.org/docs/rate-limits). The zero Rate, and any whose
// Count or Per is not above zero, is no limit.
//
// What was drawn is one time: when everything can be drawn again. It is
// called full below, and the zero Time, or one that is over, says that nothing
// was drawn that still counts.
type Rate struct {
	Count int
	Per   time.Duration
}

// Limited reports whether r is a limit.
func (r Rate) Limited() bool { return r.Count > 0 && r.Per > 0 }

// Reserve is how many of Count to leave alone so that only a part of it is
// used, in hundredths. At least one is left to be used.
func (r Rate) Reserve(used int) int {
	if !r.Limited() {
		return 0
	}
	return r.Count - max(1, r.Count*used/100)
}

// Even is a rate of one at a time that uses a part, in hundredths, of what r
// fills up by in the long run.
func (r Rate) Even(used int) Rate {
	if !r.Limited() || used <= 0 {
		return Rate{}
	}
	i, part := r.interval(), time.Duration(used)
	return Rate{1, i/part*100 + i%part*100/part} // i*100 may be too long: a Per can be a century
}

// Within is r with as many at once as r lets be drawn one by one within a time, or
// what r lets be drawn at once if that is more.
func (r Rate) Within(d time.Duration) Rate {
	if !r.Limited() {
		return r
	}
	n := max(r.Count, int(d/r.interval()))
	return Rate{n, time.Duration(n) * r.interval()}
}

// From returns when one may be drawn so that reserve are left still: now, or
// later.
func (r Rate) From(full, now time.Time, reserve int) time.Time {
	if !r.Limited() {
		return now
	}
	from := r.believed(full, now).Add(time.Duration(reserve+1)*r.interval() - r.burst())
	if from.Before(now) {
		return now
	}
	return from
}

// Draw returns when it is full again after one more was drawn.
func (r Rate) Draw(full, now time.Time) time.Time {
	if !r.Limited() {
		return full
	}
	return r.believed(full, now).Add(r.interval())
}

// Return returns when it is full again after one that was drawn is given back.
func (r Rate) Return(full, now time.Time) time.Time {
	if !r.Limited() {
		return full
	}
	return r.believed(full, now).Add(-r.interval())
}

// Left is how many can be drawn now, one after the other, so that reserve are
// left still.
func (r Rate) Left(full, now time.Time, reserve int) int {
	if !r.Limited() {
		return 0
	}
	return max(0, int((r.burst()-r.believed(full, now).Sub(now))/r.interval())-reserve)
}

// interval is rounded up, so that no rounding ever draws too much.
func (r Rate) interval() time.Duration {
	return (r.Per + time.Duration(r.Count) - 1) / time.Duration(r.Count)
}

// burst is how long it takes until all can be drawn again: Per, but for rounding.
func (r Rate) burst() time.Duration { return r.interval() * time.Duration(r.Count) }

// believed is full between now and what the rate alone can have brought about. A
// clock that was far ahead when something was drawn stops nothing for longer than
// Per.
func (r Rate) believed(full, now time.Time) time.Time {
	if most := now.Add(r.burst()); full.After(most) {
		return most
	}
	if full.Before(now) {
		return now
	}
	return full
}
