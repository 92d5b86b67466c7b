// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/schedule"
)

// A gate lets so many issuances go on at once, and so many begin within any minute.
//
// Renewals and first issuances, for which a handshake waits, take turns where both
// are there: clients that make up names cannot hold up renewals, nor can many
// renewals that are due at once hold up a new name.
type gate struct {
	atOnce, perMinute int

	mu      sync.Mutex
	running int
	// begun are the times of the last perMinute beginnings, the oldest at next. A
	// count per minute that lets a burst through at its end and another at the next
	// one's beginning would be twice what the CA was promised.
	begun   []time.Time
	next    int
	queues  [2]schedule.Queue // of first issuances, and of renewals
	turn    int               // whose it is
	admit   map[string]chan struct{}
	opening *time.Timer // when the rate lets the next one in; nil if none waits for that
}

// A place is where in the gate an issuance waits: for a renewal, by is the end of
// the certificate that is served, else since when a handshake waits.
type place struct {
	renewal bool
	by      time.Time
}

func (p place) queue() int {
	if p.renewal {
		return 1
	}
	return 0
}

// busyError is why a name has to be asked for again.
type busyError struct{ waiting, perMinute int }

func (e busyError) Error() string {
	return fmt.Sprintf("%d others wait to be issued, and %d a minute may begin: raise MaxPerMinute if the issuer can take more", e.waiting, e.perMinute)
}

// enter waits until the issuance for the name may begin. What would not begin within
// a minute is refused at once. Who entered has to leave.
func (g *gate) enter(ctx context.Context, name string, p place) error {
	g.mu.Lock()
	if n := g.queues[0].Len(); !p.renewal && n >= g.perMinute {
		g.mu.Unlock()
		return busyError{n, g.perMinute}
	}
	if g.admit == nil {
		g.admit = make(map[string]chan struct{})
	}
	admitted := make(chan struct{})
	g.admit[name] = admitted
	g.queues[p.queue()].Put(name, schedule.Urgency{By: p.by})
	g.openLocked()
	g.mu.Unlock()

	select {
	case <-admitted:
		if ctx.Err() == nil {
			return nil
		}
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.queues[p.queue()].Remove(name) { // admitted just now
		g.running--
		g.openLocked()
	}
	delete(g.admit, name)
	return fmt.Errorf("waiting to begin, with %d others issued at once and %d a minute: %w", g.atOnce, g.perMinute, ctx.Err())
}

// leave ends what enter began.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running--
	g.openLocked()
}

// openLocked admits whoever may begin now.
func (g *gate) openLocked() {
	for g.running < g.atOnce {
		queue := g.turn
		if g.queues[queue].Len() == 0 {
			queue = 1 - queue
		}
		name := g.queues[queue].First()
		if name == "" {
			return
		}
		if wait := g.waitLocked(); wait > 0 {
			g.laterLocked(wait)
			return
		}
		g.noteLocked(time.Now())
		g.running++
		g.turn = 1 - queue
		g.queues[queue].Remove(name)
		close(g.admit[name])
		delete(g.admit, name)
	}
}

// waitLocked is how long the rate lets nothing begin.
func (g *gate) waitLocked() time.Duration {
	if len(g.begun) < g.perMinute {
		return 0
	}
	return time.Until(g.begun[g.next].Add(time.Minute))
}

func (g *gate) noteLocked(now time.Time) {
	if len(g.begun) < g.perMinute {
		g.begun = append(g.begun, now)
		return
	}
	g.begun[g.next] = now
	g.next = (g.next + 1) % g.perMinute
}

func (g *gate) laterLocked(wait time.Duration) {
	if g.opening != nil {
		return
	}
	g.opening = time.AfterFunc(wait, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.opening = nil
		g.openLocked()
	})
}

// close ends the timer. Nobody waits any more.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opening != nil {
		g.opening.Stop()
		g.opening = nil
	}
}
