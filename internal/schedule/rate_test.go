// SPDX-License-Identifier: Apache-2.0

package schedule_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/internal/schedule"
)

// drain draws at one time for as long as that is allowed.
func drain(r schedule.Rate, full, now time.Time, reserve int) (after time.Time, n int) {
	for !r.From(full, now, reserve).After(now) && n <= r.Count {
		full = r.Draw(full, now)
		n++
	}
	return full, n
}

// TestBurstAndRefill: all at once, and then one each time its share of the time has
// gone by.
func TestBurstAndRefill(t *testing.T) {
	r := schedule.Rate{Count: 5, Per: 10 * time.Hour}
	if left := r.Left(time.Time{}, from, 0); left != 5 {
		t.Errorf("%d are left at the start", left)
	}
	full, n := drain(r, time.Time{}, from, 0)
	if n != 5 || r.Left(full, from, 0) != 0 || !full.Equal(from.Add(10*time.Hour)) {
		t.Fatalf("%d drawn at once, %d left, full at %v", n, r.Left(full, from, 0), full)
	}
	for hour, want := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2, 9: 4, 10: 5, 1000: 5} {
		now := from.Add(time.Duration(hour) * time.Hour)
		if left := r.Left(full, now, 0); left != want {
			t.Errorf("%d left after %d hours, want %d", left, hour, want)
		}
		if _, n := drain(r, full, now, 0); n != want {
			t.Errorf("%d drawn after %d hours, want %d", n, hour, want)
		}
	}
	if next := r.From(full, from, 0); !next.Equal(from.Add(2 * time.Hour)) {
		t.Errorf("the next one at %v", next)
	}
}

// TestReserve: what is left alone can be drawn by who may, and comes back first.
func TestReserve(t *testing.T) {
	r := schedule.Rate{Count: 50, Per: 50 * time.Hour}
	reserve := r.Reserve(90)
	full, n := drain(r, time.Time{}, from, reserve)
	if reserve != 5 || n != 45 || r.Left(full, from, reserve) != 0 || r.Left(full, from, 0) != 5 {
		t.Fatalf("%d in reserve, %d drawn, %d left", reserve, n, r.Left(full, from, 0))
	}
	full, n = drain(r, full, from, 0)
	if next := r.From(full, from, reserve); n != 5 || !next.Equal(from.Add(6*time.Hour)) {
		t.Errorf("%d drawn of the reserve, the next that leaves it at %v", n, next)
	}
	for count, want := range map[int]int{1: 0, 2: 1, 5: 1, 300: 30} { // one can always be used
		if got := (schedule.Rate{Count: count, Per: time.Hour}).Reserve(90); got != want {
			t.Errorf("%d of %d in reserve, want %d", got, count, want)
		}
	}
}

// TestGivingBack undoes a draw, and never leaves more than there is.
func TestGivingBack(t *testing.T) {
	r := schedule.Rate{Count: 3, Per: 3 * time.Hour}
	full, _ := drain(r, time.Time{}, from, 0)
	if full = r.Return(full, from); r.Left(full, from, 0) != 1 {
		t.Errorf("%d left after one came back", r.Left(full, from, 0))
	}
	for range 10 {
		full = r.Return(full, from.Add(time.Minute))
	}
	if left := r.Left(full, from.Add(time.Minute), 0); left != 3 {
		t.Errorf("%d left after too many came back", left)
	}
	if _, n := drain(r, full, from.Add(time.Minute), 0); n != 3 {
		t.Errorf("%d drawn after too many came back", n)
	}
}

// TestClockGoesBack: it gives nothing, and stops nothing for longer than the limit's
// own time.
func TestClockGoesBack(t *testing.T) {
	r := schedule.Rate{Count: 4, Per: 4 * time.Hour}
	full, _ := drain(r, time.Time{}, from, 0)
	for _, back := range []time.Duration{time.Second, time.Hour, 5 * 365 * day} {
		now := from.Add(-back)
		if _, n := drain(r, full, now, 0); n != 0 {
			t.Errorf("%d drawn since the clock was set back by %v", n, back)
		}
		if next := r.From(full, now, 0); next.After(now.Add(time.Hour)) {
			t.Errorf("set back by %v: the next one after %v", back, next.Sub(now))
		}
		if again := r.Draw(full, now); again.After(now.Add(5 * time.Hour)) {
			t.Errorf("set back by %v: full after %v", back, again.Sub(now))
		}
	}
}

// TestNoLimit is what a Rate without a count or a time is.
func TestNoLimit(t *testing.T) {
	for _, r := range []schedule.Rate{{}, {Count: 5}, {Per: time.Hour}, {Count: -1, Per: time.Hour}, {Count: 1, Per: -1}} {
		full := from.Add(day)
		if r.Limited() || !r.From(full, from, 3).Equal(from) || !r.Draw(full, from).Equal(full) || !r.Return(full, from).Equal(full) ||
			r.Reserve(90) != 0 || r.Even(90) != (schedule.Rate{}) || r.Within(time.Hour) != r {
			t.Errorf("%+v limits something", r)
		}
	}
}

// TestPaceWithin: an even pace draws one at a time, and one that is looked after rarely
// what comes together meanwhile.
func TestPaceWithin(t *testing.T) {
	pace := (schedule.Rate{Count: 300, Per: 3 * time.Hour}).Even(90)
	for every, want := range map[time.Duration]int{0: 1, time.Minute: 1, 80 * time.Second: 2, time.Hour: 90, day: 2160} {
		r := pace.Within(every)
		full, n := drain(r, time.Time{}, from, 0)
		if n != want || !r.From(full, from, 0).Equal(from.Add(40*time.Second)) {
			t.Errorf("looked after each %v: %d at once, the next one after %v", every, n, r.From(full, from, 0).Sub(from))
		}
	}
}

// TestWhatACAGrants holds several buckets against a CA that counts for itself: what
// comes back each moment, and no more than there is. Whatever is drawn when, and given
// back, the CA never refuses what the rate allows, nor the rate what the CA allows for
// longer than rounding takes.
func TestWhatACAGrants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := schedule.Rate{Count: rapid.IntRange(1, 400).Draw(t, "count"), Per: time.Duration(rapid.Int64Range(1000, int64(40*day)).Draw(t, "per"))}
		now := from
		full := make([]time.Time, 3)
		for i := range full {
			full[i] = now
		}
		left := []float64{float64(r.Count), float64(r.Count), float64(r.Count)} // by the CA
		share := float64(r.Count) / float64(r.Per)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			wait := time.Duration(rapid.Int64Range(0, 3*int64(r.Per)/int64(r.Count)).Draw(t, "wait"))
			now = now.Add(wait)
			for i := range left {
				left[i] = min(float64(r.Count), left[i]+float64(wait)*share)
			}
			i := rapid.IntRange(0, 2).Draw(t, "bucket")
			switch allowed := !r.From(full[i], now, 0).After(now); {
			case rapid.IntRange(0, 5).Draw(t, "give back") == 0 && left[i] <= float64(r.Count)-1:
				full[i] = r.Return(full[i], now)
				left[i]++
			case allowed && left[i] < 1-1e-6:
				t.Fatalf("bucket %d is drawn on with %.6f left", i, left[i])
			case allowed:
				full[i] = r.Draw(full[i], now)
				left[i]--
			case left[i] > 1+float64(r.Count*r.Count)*share+1e-6: // a nanosecond for each that was drawn
				t.Fatalf("bucket %d is not drawn on with %.6f left", i, left[i])
			}
		}
	})
}
