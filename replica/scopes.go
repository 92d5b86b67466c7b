// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// groupFollower is the follower of the group itself.
func (r *Replica) groupFollower() *follower {
	return &follower{
		source: r.log, scope: event.GroupScope(r.group), lost: r.lost,
		from: r.from,
		restart: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.position, r.unresolved, r.history = bus.Position{}, nil, history{}
		},
		open: r.open,
		take: func(u update) error {
			r.take(u)
			return nil
		},
	}
}

// from is where the group is followed from.
func (r *Replica) from() bus.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.again != nil {
		r.position, r.again = *r.again, nil
	}
	if r.position.IsZero() {
		r.agrees = make(map[string]bool)
	}
	return r.position
}

// followAgain follows the group from another place. It is called with mu held.
func (r *Replica) followAgain(from bus.Position) {
	if r.main != nil && (r.again == nil || !r.again.IsZero()) {
		r.again = &from
		r.main.again()
	}
}

// memo returns a follower of another scope: one of so few entries that it is
// followed from its start each time, and needs no place.
func (r *Replica) memo(s source, scope string, take func(bus.Update) error) *follower {
	var said string
	failures := 0
	return &follower{
		source: s, scope: scope,
		from:    func() bus.Position { return bus.Position{} },
		restart: func() {},
		take: func(u update) error {
			if err := take(u.Update); err != nil {
				return err
			}
			said, failures = "", 0
			return nil
		},
		lost: func(err error) {
			failures++
			// Where the group is not followed either, that has been said.
			if failures > 1 && r.following() && err.Error() != said {
				said = err.Error()
				r.logger.Warn("a scope of the bus is not being followed; trying on", "scope", scope, "error", err)
			}
		},
	}
}

func (r *Replica) following() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status.Following
}

// lost notes why the bus is not being followed, and logs each reason once.
func (r *Replica) lost(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.LastError == nil || r.status.LastError.Error() != err.Error() {
		r.logger.Warn("the bus is not being followed; trying on, and serving what is here", "error", err)
		r.kick()
	}
	r.status.Following, r.status.LastError = false, err
	r.proveSoon()
}
