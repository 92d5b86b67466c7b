// SPDX-License-Identifier: Apache-2.0

package schedule_test

import (
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/schedule"
)

const day = 24 * time.Hour

var from = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC) // leap days and DST ahead

// spread is the first and the last of what at says of many certificates that differ
// in their seeds alone.
func spread(life time.Duration, at func(schedule.Certificate) time.Time) (first, last time.Duration) {
	for i := range 200 {
		got := at(schedule.Certificate{From: from, End: from.Add(life), Seed: strconv.Itoa(i)}).Sub(from)
		if i == 0 || got < first {
			first = got
		}
		last = max(last, got)
	}
	return first, last
}

// TestDue holds the rule for lifetimes from five minutes to 398 days.
func TestDue(t *testing.T) {
	for life, left := range map[time.Duration]time.Duration{
		5 * time.Minute: 150 * time.Second, 160 * time.Hour: 80 * time.Hour, 10*day - 2: 5*day - 1,
		10 * day: 80 * time.Hour, 45 * day: 15 * day, 90 * day: 30 * day, 396 * day: 132 * day,
	} {
		if got := schedule.Before(life); got != left {
			t.Errorf("%v: renewed %v before the end, want %v", life, got, left)
		}
		first, last := spread(life, func(c schedule.Certificate) time.Time { return c.Due(left) })
		if last > life-left || first < life-left-life/50 {
			t.Errorf("%v: due from %v to %v", life, first, last)
		}
		if last-first < life/100 {
			t.Errorf("%v: all due within %v", life, last-first)
		}
		if first, _ := spread(life, func(c schedule.Certificate) time.Time { return c.Due(life) }); first < life/50 {
			t.Errorf("%v: due again %v after it was made", life, first)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		life, start, end  time.Duration
		earliest, latest  time.Duration
		spreadOverAtLeast time.Duration
	}{
		{90 * day, 50 * day, 60 * day, 50 * day, 60 * day, 9 * day},
		{90 * day, 80 * day, 90 * day, 80 * day, 81 * day, 20 * time.Hour}, // a tenth is left for retries
		{90 * day, 95 * day, 99 * day, 81*day - 90*day/50, 81 * day, day},
		{90 * day, -9 * day, -8 * day, 90 * day / 50, 90 * day / 50, 0}, // at once, but never in a loop
		{time.Minute, -day, -day + 1, 1200 * time.Millisecond, 1200 * time.Millisecond, 0},
	} {
		first, last := spread(test.life, func(c schedule.Certificate) time.Time {
			return c.Within(from.Add(test.start), from.Add(test.end))
		})
		if first < test.earliest || last > test.latest || last-first < test.spreadOverAtLeast {
			t.Errorf("%v, window from %v to %v: due from %v to %v", test.life, test.start, test.end, first, last)
		}
	}
}

func TestRetry(t *testing.T) {
	for _, test := range []struct {
		life, left time.Duration
		failures   uint64
		want       time.Duration
	}{
		{90 * day, 30 * day, 1, time.Minute},
		{90 * day, 30 * day, 2, 10 * time.Minute},
		{90 * day, 30 * day, 3, 100 * time.Minute},
		{90 * day, 30 * day, 4, day},
		{90 * day, 30 * day, 400, day},
		{90 * day, 3 * day, 9, 90 * day / 100},  // sooner as the end comes
		{90 * day, -3 * day, 9, 90 * day / 100}, // and never in a loop
		{3 * time.Minute, 90 * time.Second, 1, 22500 * time.Millisecond},
		{3 * time.Minute, -time.Second, 9, schedule.MinRetry},
	} {
		c := schedule.Certificate{From: from, End: from.Add(test.life)}
		if got := c.Retry(test.failures, c.End.Add(-test.left)); got != test.want {
			t.Errorf("%d failures, %v of %v left: retried after %v, want %v", test.failures, test.left, test.life, got, test.want)
		}
	}
	if schedule.Backoff(1) != time.Minute || schedule.Backoff(9) != schedule.MaxRetry {
		t.Error("without a certificate, the back-off is another")
	}
}

// A rate of a century is as good as any: nothing overflows.
func TestEvenOfLongRates(t *testing.T) {
	for _, per := range []time.Duration{time.Hour, 1100 * day, 36500 * day} {
		for _, used := range []int{1, 90, 100} {
			if used == 1 && per > time.Hour {
				continue // that is longer than there are durations
			}
			want := float64(per) * 100 / float64(used)
			if got := (schedule.Rate{Count: 1, Per: per}).Even(used).Per; math.Abs(float64(got)/want-1) > 1e-9 {
				t.Errorf("%d %% of one in %v: one in %v", used, per, got)
			}
		}
	}
}
