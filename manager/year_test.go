// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/race"
	"github.com/keyturn/keyturn/seal"
)

// TestYear runs the whole manager through a year with a leap day: 100 certificates
// of 6, 47 and 90 days, and a manager that is ended each day and another one begun
// minutes later, at every time of the day in turn. What stands for replicas is
// judged at each publication: no certificate ends, and each is renewed when the rule
// says, late by no more than the minutes without a manager, and no more often.
//
// Under the race detector a manager is ended each week only: each start of one
// verifies all certificates, for which it takes ten times as long.
func TestYear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Date(2027, 12, 1, 0, 0, 0, 0, time.UTC)
		time.Sleep(time.Until(start))
		f, m := newFleet(t)
		w := &witness{t: t, f: f, stands: make(map[string]*stand)}
		var following sync.WaitGroup
		following.Go(w.follow)

		of := map[time.Duration]int{6 * day: 5, 47 * day: 45, 90 * day: 50}
		made := 0
		for _, life := range slices.Sorted(maps.Keys(of)) {
			for range of[life] {
				made++
				if _, err := m.Make(t.Context(), Request{Names: []string{fmt.Sprintf("h%d.example", made)}, Lifetime: life}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for end := start.AddDate(1, 0, 0); time.Now().Before(end); {
			stop := run(t, f.manager(t, ""))
			time.Sleep(somebodyRuns)
			stop()
			time.Sleep(nobodyRuns)
		}
		synctest.Wait()
		w.judge(made, time.Since(start))
	})
}

// somebodyRuns is how long each manager of a year runs: a day, or a week with the race
// detector.
var somebodyRuns = map[bool]time.Duration{false: day, true: 7 * day}[race.Enabled]

// nobodyRuns is how long there is no manager after each: all of it in a year is more
// than a day, so that managers begin and end at all hours.
var nobodyRuns = somebodyRuns / 360

// A witness sees what replicas do.
type witness struct {
	t *testing.T
	f *fleet

	mu     sync.Mutex
	stands map[string]*stand // guarded by mu; by id
}

// A stand is what replicas have of one certificate.
type stand struct {
	generation uint64
	from, end  time.Time
}

// due are the first and the last moment at which the rule has it renewed: with a
// third of the lifetime left, or half of it if that is under ten days, less a
// jitter of a fiftieth.
func (s stand) due() (first, last time.Time) {
	life := s.end.Sub(s.from)
	left := life / 3
	if life < 10*day {
		left = life / 2
	}
	last = s.end.Add(-left)
	return last.Add(-life / 50), last
}

func (w *witness) follow() {
	for u, err := range w.f.log.Follow(w.t.Context(), groupsScope, bus.Position{}) {
		if err != nil {
			return // the test is over
		}
		if u.CaughtUp {
			continue
		}
		e, err := event.Open([]*seal.VerifyKey{w.f.identity.Signing.Public()}, DefaultTenant, u.Key, u.Data)
		if err != nil {
			w.t.Error(err)
			return
		}
		if c, ok := e.Body.(*event.Certificate); ok {
			w.see(c)
		}
	}
}

// see holds what was published against what stood before.
func (w *witness) see(c *event.Certificate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	old, ok := w.stands[c.ID]
	w.stands[c.ID] = &stand{c.Generation, now, c.NotAfter}
	if !ok {
		return
	}
	if !now.Before(old.end) {
		w.t.Errorf("%s: generation %d ended at %v, the next came at %v", c.ID, old.generation, old.end, now)
	}
	if c.Generation != old.generation+1 {
		w.t.Errorf("%s: generation %d follows %d", c.ID, c.Generation, old.generation)
	}
	if first, last := old.due(); now.Before(first) || now.After(last.Add(nobodyRuns+time.Second)) {
		w.t.Errorf("%s: renewed at %v, due from %v to %v", c.ID, now, first, last)
	}
}

// judge looks at what is left after a time.
func (w *witness) judge(made int, after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.stands) != made {
		w.t.Errorf("%d certificates stand for replicas, of %d", len(w.stands), made)
	}
	renewed := 0
	for id, s := range w.stands {
		first, last := s.due()
		if last.Add(nobodyRuns + time.Second).Before(time.Now()) {
			w.t.Errorf("%s: due at %v, and not renewed", id, last)
		}
		renewed += int(s.generation) - 1
		if most := int(after/first.Sub(s.from)) + 1; int(s.generation)-1 > most {
			w.t.Errorf("%s: renewed %d times in %v, %d would do", id, s.generation-1, after, most)
		}
	}
	w.t.Logf("%d certificates were renewed %d times", made, renewed)
}
