// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"slices"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// maxHistory is how many changes are remembered at least: a beacon that is
// older than all of them is skipped.
const maxHistory = 4096

// A history remembers the last changes of what is held, so that it can be said
// what was held at an earlier place on the bus.
type history struct {
	from    bus.Position // before it nothing is known
	changes []change     // in the order in which they were applied
}

// A change says what was held of an id before.
type change struct {
	at       bus.Position
	id       string
	previous event.Version // zero if nothing was
}

// add notes a change that the entry at a place brought; old is what was held.
func (h *history) add(at bus.Position, id string, old *held) {
	c := change{at: at, id: id}
	if old != nil {
		c.previous = old.version
	}
	h.changes = append(h.changes, c)
	if len(h.changes) < 2*maxHistory {
		return
	}
	for _, c := range h.changes[:maxHistory] {
		if c.at.Log != h.from.Log || c.at.Seq > h.from.Seq {
			h.from = c.at
		}
	}
	h.changes = slices.Clone(h.changes[maxHistory:])
}

// heldAt returns the versions that were held, removals included, when everything
// up to p was applied and nothing behind it. It reports false if that is not
// known any more. For a place that was not reached, or is in another log, it is
// what is held now.
func (r *Replica) heldAt(p bus.Position) (map[string]event.Version, bool) {
	versions := make(map[string]event.Version, len(r.held))
	for id, h := range r.held {
		versions[id] = h.version
	}
	if p.Log != r.position.Log || p.Seq >= r.position.Seq {
		return versions, true
	}
	if r.history.from.Log == p.Log && p.Seq < r.history.from.Seq {
		return nil, false
	}
	for _, c := range slices.Backward(r.history.changes) {
		if c.at.Log != p.Log || c.at.Seq <= p.Seq {
			continue
		}
		if c.previous == (event.Version{}) {
			delete(versions, c.id)
		} else {
			versions[c.id] = c.previous
		}
	}
	return versions, true
}
