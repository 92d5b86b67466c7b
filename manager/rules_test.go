// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/schedule"
)

// between draws a time from one of two to the other, to the second.
func between(t *rapid.T, what string, from, to time.Duration) time.Duration {
	return time.Duration(rapid.Int64Range(int64(from/time.Second), int64(to/time.Second)).Draw(t, what)) * time.Second
}

// anyCertificate draws one of five minutes to 398 days, that began up to two days
// before it was made, whose spec may want it renewed by any share of its lifetime
// or any time, even one that is longer.
func anyCertificate(t *rapid.T) *Managed {
	issued := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(between(t, "issued", 0, 5*365*day))
	life := between(t, "lifetime", 5*time.Minute, 398*day)
	before := ""
	switch rapid.IntRange(0, 2).Draw(t, "renew_before") {
	case 1:
		before = fmt.Sprintf("%d%%", rapid.IntRange(1, 95).Draw(t, "percent"))
	case 2:
		before = config.Duration(between(t, "time before", time.Second, 800*day)).String()
	}
	reason := rapid.SampledFrom([]string{event.ReasonNew, event.ReasonRenewal, event.ReasonCA, event.ReasonImported}).Draw(t, "reason")
	v := event.Version{Epoch: 1, Generation: 1}
	return &Managed{
		State: event.State{
			ID: event.NewID(), Version: v, Spec: event.Spec{RenewBefore: before, Created: issued},
			History: []event.Record{{Version: v, At: issued, Reason: reason}},
		},
		Certificate: &event.Certificate{Version: v, NotBefore: issued.Add(-between(t, "back-dated", 0, 2*day)), NotAfter: issued.Add(life)},
		Issued:      issued, Changed: issued, Seen: issued,
	}
}

// anyWindow draws what a CA may say: a window before, within or after the
// lifetime, over in no time, or that ends before it begins.
func anyWindow(t *rapid.T, c *Managed) *event.Renewal {
	life := c.lifetime()
	start := c.Issued.Add(between(t, "window's start", -2*life, 2*life))
	length := rapid.SampledFrom([]time.Duration{0, between(t, "window's length", -life, life)}).Draw(t, "length")
	return &event.Renewal{Generation: c.Generation, Start: start, End: start.Add(length), Asked: c.Issued}
}

// TestDueInBounds: whatever its lifetime and spec, and whatever the CA says, a
// certificate is never due at once after it was made, nor too late for retries.
func TestDueInBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCertificate(t)
		from := c.rules().From
		if rapid.Bool().Draw(t, "CA says") {
			c.Renewal = anyWindow(t, c)
		}
		at, cause := c.regular()
		if again, _ := c.regular(); !again.Equal(at) {
			t.Fatalf("due %v, then %v: the jitter is not deterministic", at, again)
		}
		share := c.lifetime() / 50
		earliest := from.Add(share)
		if cause == CauseWindow {
			earliest = from.Add(min(share, schedule.RecallAfter))
		}
		if at.Before(earliest) {
			t.Errorf("due %v after it was made, by %s", at.Sub(from), cause)
		}
		before, err := config.ParseRenewBefore(c.Spec.RenewBefore)
		if err != nil {
			t.Fatal(err)
		}
		latest := later(earliest, c.end().Add(-before.Of(c.lifetime())))
		if cause == CauseWindow {
			latest = c.end().Add(-c.lifetime() / 10)
		}
		if at.After(latest) {
			t.Errorf("due %v before the end of %v, by %s, want at least %v", c.end().Sub(at), c.lifetime(), cause, c.end().Sub(latest))
		}
	})
}

// TestRenewalsEnd renews over ten lifetimes whenever a certificate is due: by the
// default rule about twice in a lifetime, and at most fifty times whatever the spec
// wants and the CA says, even if that is always "now".
func TestRenewalsEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCertificate(t)
		life := c.end().Sub(c.Issued)
		says := rapid.SampledFrom([]string{"nothing", "now", "a window"}).Draw(t, "CA says")
		most := 10 * 50
		if says == "nothing" && c.Spec.RenewBefore == "" {
			most = 10 * 100 / 48 // half of it is left, and a fiftieth is jitter
		}
		n, end := 0, c.Issued.Add(10*life)
		for ; n <= most+1; n++ {
			switch says {
			case "now":
				c.Renewal = &event.Renewal{Generation: c.Generation, Start: c.Issued.Add(-day), End: c.Issued.Add(-time.Hour)}
			case "a window":
				c.Renewal = anyWindow(t, c)
			}
			at, cause := c.regular()
			at = later(at, c.Issued) // what was brought along may have been due before
			if at.After(end) {
				break
			}
			reason := event.ReasonRenewal
			if cause == CauseWindow {
				reason = event.ReasonCA
			}
			c.Generation++
			c.Certificate = &event.Certificate{Version: c.Version, NotBefore: at.Add(-time.Hour), NotAfter: at.Add(life)}
			c.History = []event.Record{{Version: c.Version, At: at, Reason: reason}}
			c.Issued = at
		}
		if n > most+1 { // one more than would do: the first may be soon after an import, or a recall
			t.Errorf("renewed %d times in ten lifetimes of %v", n, life)
		}
	})
}

// TestClocksOfOthers: what another machine noted, whose clock is years ahead or
// behind, delays a certificate by no more than the wait that was meant.
func TestClocksOfOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := anyCertificate(t)
		seen := c.Issued.Add(between(t, "seen", 0, c.lifetime()))
		theirs := seen.Add(between(t, "clock", -5*365*day, 5*365*day))
		c.Seen = seen
		latest := seen
		switch rapid.IntRange(0, 3).Draw(t, "noted") {
		case 0:
			wait := between(t, "wait", 0, 10*day)
			c.Failure = &event.Failure{At: theirs, Next: theirs.Add(wait), Attempts: 3}
			latest = seen.Add(min(wait, schedule.MaxRetry))
		case 1:
			c.Mark = &event.Mark{At: theirs, Reason: event.ReasonCompromised}
		case 2:
			c.Certificate, c.Generation, c.Spec.Created = nil, 0, theirs
		case 3:
			regular, _ := c.regular()
			c.Hold = &event.Hold{Until: theirs, Reason: "used up"}
			latest = later(regular, seen.Add(maxHold))
		}
		if at := c.RenewAt(); at.IsZero() || at.After(latest) {
			t.Errorf("due at %v, seen at %v, and at the latest due at %v", at, seen, latest)
		}
	})
}
