// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"container/heap"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// planLocked puts c on the heap for when something has to be done about it, but
// not before the given wait is over.
func (s *scheduler) planLocked(c *Managed, wait time.Duration) {
	at := time.Now().Add(wait)
	if s.uncopiedLocked(c) {
		s.due.push(c.ID, c.Position, later(at, c.graceEnds()))
	}
	if c.Removed || c.Pause != nil {
		s.dequeueLocked(c.ID)
		return
	}
	due := later(at, c.dueAt())
	if due.After(time.Now()) {
		s.dequeueLocked(c.ID)
	}
	s.due.push(c.ID, c.Position, due)
	s.planAskLocked(c)
}

// uncopiedLocked reports whether the newest generation, or the removal, is
// known not to stand for replicas.
func (s *scheduler) uncopiedLocked(c *Managed) bool {
	return s.caught && c.Generation > 0 && s.copies[c.ID].Less(c.Version)
}

// dueAt is RenewAt, but leaves the maker of a certificate time for the first
// generation.
func (c *Managed) dueAt() time.Time {
	if c.Generation == 0 {
		return later(c.RenewAt(), c.graceEnds())
	}
	return c.RenewAt()
}

// reason is why the next generation is made by the schedule.
func (c *Managed) reason() string {
	switch {
	case c.Generation == 0:
		return event.ReasonNew
	case c.recalled() && time.Now().Before(c.rule()):
		return event.ReasonCA
	}
	return event.ReasonRenewal
}

// graceEnds trusts the clock of whoever wrote the state no further than ours.
func (c *Managed) graceEnds() time.Time {
	if own := c.Seen.Add(grace); c.Changed.Add(grace).After(own) {
		return own
	}
	return c.Changed.Add(grace)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// A dueHeap has the plans, the soonest first. A plan is void once the state of
// its id stands elsewhere.
type dueHeap []plan

type plan struct {
	at       time.Time
	id       string
	position bus.Position
	ask      bool // the CA, when to renew
}

func (h *dueHeap) push(id string, position bus.Position, at time.Time) {
	heap.Push(h, plan{at: at, id: id, position: position})
}

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(plan)) }

func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
