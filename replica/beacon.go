// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// Times of beacons.
const (
	// arrival is how long a replica that has not reached a beacon's place waits
	// for what is on its way.
	arrival = 10 * time.Second
	// silence is the shortest time without a beacon that is reported.
	silence = 3 * time.Minute
)

// A beaconState is what is known of the managers' beacons. It is guarded by the
// replica's mutex.
type beaconState struct {
	body *event.Beacon // the newest; nil before the first
	at   bus.Position  // the place that it tells of
	live bool          // what comes now was just signed
	// done says that the newest was judged, and tried that it made the replica
	// follow from the start.
	done, tried bool
	// mending says that such a following is under way, followed that it has ended
	// and nothing was judged since.
	mending, followed bool
	arrival           *time.Timer // nil unless the beacon waits for its place
	silence           *time.Timer // nil before the replica follows beacons
}

// close stops the timers.
func (b *beaconState) close() {
	for _, t := range []*time.Timer{b.arrival, b.silence} {
		if t != nil {
			t.Stop()
		}
	}
}

// beaconFollower follows the group's beacon.
func (r *Replica) beaconFollower(board bus.Board) *follower {
	f := r.memo(board, event.BeaconKey(r.group), r.takeBeacon)
	f.from = func() bus.Position {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.beacon.live = false
		return bus.Position{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beacon.silence = time.AfterFunc(silence, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.closed {
			return
		}
		r.status.Silent = true
		r.logger.Warn("no beacon of a manager has come for a while: whether anything is missing here is not known", "last", r.status.Beacon)
		r.kick()
	})
	return f
}

// takeBeacon verifies a beacon and compares what it says with what is held.
func (r *Replica) takeBeacon(u bus.Update) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.beacon
	if u.CaughtUp {
		b.live = true
		return nil
	}
	e, err := event.Open(*r.managers.Load(), r.tenant, u.Key, u.Data)
	if err != nil {
		r.refuse(u.Key, reasonOf(err), err)
		return nil
	}
	body, ok := e.Body.(*event.Beacon)
	if !ok {
		r.refuse(u.Key, RefusedUnsupported, event.ErrUnsupported)
		return nil
	}
	at, err := bus.ParsePosition(body.Position)
	if err != nil {
		r.refuse(u.Key, RefusedMalformed, err)
		return nil
	}
	if !e.Time.After(r.status.Beacon) {
		return nil // it was seen, or is older than one that was
	}
	r.status.Beacon = e.Time
	if b.live {
		r.status.Skew = time.Until(e.Time)
	}
	b.silence.Reset(max(3*body.Every, silence))
	if r.status.Silent {
		r.status.Silent = false
		r.kick()
	}
	b.body, b.at, b.done, b.tried = body, at, false, false
	if b.arrival != nil {
		b.arrival.Stop()
		b.arrival = nil
	}
	r.judge(false)
	return nil
}

// judge compares the newest beacon with what is held, once that can be done.
// late says that there is no more waiting for its place.
func (r *Replica) judge(late bool) {
	b := &r.beacon
	if b.body == nil || b.done || r.agrees != nil || r.again != nil {
		return // complete judges after following from the start
	}
	versions, known := r.heldAt(b.at)
	switch {
	case known && b.says(versions):
		b.done = true
		r.equal()
	case !late && r.behind():
		body := b.body
		b.arrival = time.AfterFunc(arrival, func() { r.arrived(body) })
	case known && r.status.Following:
		b.done = true
		r.differs()
	default:
		b.done = true // it cannot be told
	}
}

// arrived judges a beacon that has waited long enough.
func (r *Replica) arrived(body *event.Beacon) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed && r.beacon.body == body {
		r.judge(true)
	}
}

// behind reports whether the place of the newest beacon is still to be reached.
func (r *Replica) behind() bool {
	at := r.beacon.at
	return at.Log != r.position.Log || r.position.Seq < at.Seq
}

// says reports whether a beacon says that these should be held.
func (b *beaconState) says(versions map[string]event.Version) bool {
	return uint64(len(versions)) == b.body.Count && bytes.Equal(event.NewDigest(versions), b.body.Digest)
}

// reached judges a beacon that has waited for its place.
func (r *Replica) reached() {
	if r.beacon.arrival != nil && !r.behind() {
		r.judge(false)
	}
}

// equal notes that what is held is what it should be.
func (r *Replica) equal() {
	if r.status.Differs {
		r.status.Differs = false
		if r.beacon.followed {
			r.status.Healed++
		}
		r.logger.Info("what is held is what the managers say again")
		r.kick()
	}
	r.beacon.followed = false
}

// differs notes that something else is held than should be, and follows the bus
// from the start: an entry was missed, or the bus lost one. It does so once for
// a beacon, and not at all where refused entries are the whole difference.
func (r *Replica) differs() {
	b := &r.beacon
	if !r.status.Differs {
		r.status.Differs = true
		r.logger.Error("what is held is not what the managers say; following the bus from its start, and serving what is here",
			"position", b.body.Position, "held", len(r.held), "expected", b.body.Count)
		r.kick()
	}
	b.followed = false
	if b.tried || b.says(r.offered()) {
		return
	}
	b.tried, b.mending, b.done = true, true, false
	r.followAgain(bus.Position{})
	for _, f := range r.memos { // what the group's scope lost, theirs may have lost
		f.again()
	}
}

// offered returns what would be held if nothing had been refused.
func (r *Replica) offered() map[string]event.Version {
	versions := make(map[string]event.Version, len(r.held))
	for id, h := range r.held {
		versions[id] = h.version
	}
	for id, f := range r.failures {
		if versions[id].Less(f.version) {
			versions[id] = f.version
		}
	}
	return versions
}

// yielded notes, while the bus is followed from its start, which entries were
// there. It is called after the entry was applied or refused.
func (r *Replica) yielded(entry bus.Entry) {
	if r.agrees == nil {
		return
	}
	r.history.from = entry.Position // of what was held before it is not known when
	if id, ok := r.idOf(entry.Key); ok {
		h := r.held[id]
		r.agrees[id] = h != nil && h.is(entry.Data)
	}
}

// complete ends a following from the start: what is held, and not what the bus
// has, proves that the bus went back.
func (r *Replica) complete() {
	if r.agrees == nil {
		return
	}
	proofs := make(map[string]bool)
	for id, h := range r.held {
		if !r.agrees[id] && !h.version.Less(r.failures[id].version) {
			proofs[id] = true
		}
	}
	if len(proofs) > len(r.proofs) {
		r.logger.Error("the bus has lost what is held here; it is served on, and reported to the managers", "certificates", len(proofs))
	}
	r.agrees, r.proofs, r.history.changes = nil, proofs, nil
	r.beacon.followed, r.beacon.mending = r.beacon.mending, false
	r.judge(true)
}
