// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/schedule"
)

// TestPageNumbers holds what the pages say of times and shares to what managers go by.
func TestPageNumbers(t *testing.T) {
	const life = 90 * day
	now := time.Now()
	c := schedule.Certificate{From: now, End: now.Add(life)}
	// What the jitter and a CA's window come to, over many certificates.
	soonest, latest, within := life, time.Duration(0), time.Duration(0)
	for n := range 2000 {
		c.Seed = fmt.Sprint(n)
		early := life - schedule.Before(life) - c.Due(schedule.Before(life)).Sub(now)
		soonest, latest = min(soonest, early), max(latest, early)
		within = max(within, c.Within(now.Add(80*day), now.Add(100*day)).Sub(now))
	}
	answered := &Managed{State: event.State{Renewal: &event.Renewal{Asked: now, Next: now.Add(30 * day)}}}
	again, _ := answered.askAt()
	_, m := newFleet(t)
	ca, err := m.acmeConfig("ca", &config.ACME{Directory: "https://ca.example.com/dir"}, &config.Shared{})
	if err != nil {
		t.Fatal(err)
	}

	thirds := schedule.Before(10*day) == 10*day/3 && schedule.Before(life) == life/3 && schedule.Before(10*day-1) == (10*day-1)/2
	fiftieth := soonest >= 0 && latest < life/50 && latest > life/50*99/100
	retries := schedule.Backoff(1) == time.Minute && schedule.Backoff(2) == 10*time.Minute && schedule.Backoff(3) == 100*time.Minute && schedule.Backoff(4) == day && schedule.Backoff(99) == day
	for page, claims := range map[string]map[string]bool{
		"acme.md": {
			"silent for three minutes do not count":                                                  SilentAfter == 3*time.Minute,
			"has not answered after 30 seconds is an error":                                          answerTimeout == 30*time.Second,
			"if nobody does, replicas forget it after ten minutes":                                   challengeLife == 10*time.Minute,
			"within the hour after a certificate was made":                                           firstAsk+grace <= time.Hour+time.Minute,
			"as often as it likes, at least daily":                                                   !again.After(now.Add(day)),
			"never later than when a tenth of the lifetime is left":                                  within <= life-life/10 && within > life-life/10-day,
			"when a third of its lifetime is left, half where it lives less than ten days":           thirds,
			"and up to a fiftieth of it earlier":                                                     fiftieth,
			"A tenth, and at least one of several, is left alone for certificates in danger":         schedule.Rate{Count: 300, Per: day}.Reserve(margin) == 30 && schedule.Rate{Count: 2, Per: day}.Reserve(margin) == 1,
			"in danger, which have a tenth of their lifetime left":                                   c.Danger().Equal(c.End.Add(-life / 10)),
			"evenly over the rest, one in 40 seconds at Let's Encrypt":                               schedule.Rate(limitsOf(&config.ACME{Directory: "letsencrypt"}).Orders).Even(margin).Per == 40*time.Second,
			"With a twentieth of its lifetime left a certificate is ordered whatever the count says": c.Last().Equal(c.End.Add(-life / 20)),
			"the next attempt is 1, 10 and 100 minutes later, then daily":                            retries,
			"later where the CA says so by Retry-After, up to a day":                                 schedule.MaxRetry == day,
			"After three failures in a row the next one is asked":                                    fallbackAfter == 3,
			"each attempt waits four minutes for a step, five in all":                                ca.Patience == 4*time.Minute && issueTimeout == 5*time.Minute,
		},
		"operating.md": {
			"when a third of its lifetime is left, half where it lives less than ten days": thirds,
			"up to a fiftieth of the lifetime earlier":                                     fiftieth,
			"the next attempt comes after 1, 10 and 100 minutes, then daily":               retries,
		},
	} {
		b, err := os.ReadFile("../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(strings.Fields(string(b)), " ")
		for claim, holds := range claims {
			if !strings.Contains(text, claim) {
				t.Errorf("%s does not say any more: %s", page, claim)
			}
			if !holds {
				t.Errorf("%s says what does not hold: %s", page, claim)
			}
		}
	}
}
