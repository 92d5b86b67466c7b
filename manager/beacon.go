// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// A tally is what stands under a group's key: what its replicas should have.
type tally struct {
	versions map[string]event.Version // by id, removals included
	at       bus.Position             // of the newest entry
}

// take counts an entry. One that is older than what was there, or is not to be
// believed, changes nothing, as with a replica.
func (t *tally) take(id string, v event.Version, at bus.Position) {
	t.at = at
	if t.versions[id].Less(v) {
		t.versions[id] = v
	}
}

// putBeacon signs a group's beacon and puts it on the board, if replicas would
// believe it. It returns when it was signed.
func (m *Manager) putBeacon(ctx context.Context, group string, t tally) (time.Time, error) {
	now := time.Now()
	if _, err := m.mayWrite(ctx); err != nil {
		return now, err
	}
	data, err := event.Sign(m.identity.Signing, m.tenant, now, &event.Beacon{
		Group: group, Position: t.at.String(), Count: uint64(len(t.versions)), Digest: event.NewDigest(t.versions), Every: m.every,
	})
	if err != nil {
		return now, err
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	crash.Point(crash.BeaconSigned)
	if err := m.board.Put(ctx, event.BeaconKey(group), data); err != nil {
		return now, fmt.Errorf("putting the beacon of group %q on the board: %w", group, err)
	}
	return now, nil
}

// spread is the part of the interval over which several managers spread their
// beacons: whoever comes first signs it, and the others see it and wait anew.
func (m *Manager) spread() time.Duration { return m.every / 6 }

// dueAfter is when the next beacon is due if one was seen now.
func (m *Manager) dueAfter() time.Time {
	return time.Now().Add(m.every - m.spread() + rand.N(m.spread()))
}

// keepBeacons signs beacons when they are due until Run ends.
func (s *scheduler) keepBeacons() {
	warned := false
	for {
		next, err := s.signDue()
		if err != nil && !warned && s.ctx.Err() == nil {
			s.m.logger.Warn("beacons cannot be signed; trying on", "error", err)
		}
		warned = err != nil
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(next):
		}
	}
}

// signDue signs the beacons that are due, if everything that they tell of has
// been read, and returns when to look again.
func (s *scheduler) signDue() (next time.Duration, failed error) {
	next = min(refollow, s.m.spread())
	if !s.view.ready() {
		return next, nil
	}
	due, next := s.view.dueBeacons(time.Now())
	for _, group := range due {
		if err := s.signBeacon(group); err != nil {
			failed = err
		}
	}
	return next, failed
}

func (s *scheduler) signBeacon(group string) error {
	t, ok := s.tallyOf(group)
	if !ok {
		return nil
	}
	at, err := s.m.putBeacon(s.ctx, group, t)
	if err == nil {
		s.view.signed(group, at)
	}
	return err
}

// tallyOf returns a copy of what stands under a group's key, if all of it was
// read.
func (s *scheduler) tallyOf(group string) (tally, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.caught {
		return tally{}, false
	}
	t := s.tallyLocked(group)
	copied := tally{at: t.at, versions: make(map[string]event.Version, len(t.versions))}
	for id, v := range t.versions {
		copied.versions[id] = v
	}
	return copied, true
}

func (s *scheduler) tallyLocked(group string) *tally {
	t := s.tallies[group]
	if t == nil {
		t = &tally{versions: make(map[string]event.Version)}
		s.tallies[group] = t
	}
	return t
}

// dueBeacons returns the groups whose beacon is due, and how long none other is.
func (v *view) dueBeacons(now time.Time) (due []string, next time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	next = v.m.spread() // a group may be new by then
	for name, g := range v.groups {
		if g.Removed {
			continue
		}
		b, ok := v.beacons[name]
		if !ok { // all managers see it now
			b.due = now.Add(rand.N(v.m.spread()))
			v.beacons[name] = b
		}
		if wait := b.due.Sub(now); wait > 0 {
			next = min(next, wait)
		} else {
			due = append(due, name)
		}
	}
	slices.Sort(due)
	return due, next
}

// signAll signs a beacon for each group, of what stands for its replicas by now.
func (s *scheduler) signAll() error {
	if s.m.board == nil {
		return nil
	}
	if err := s.readAll(); err != nil {
		return fmt.Errorf("reading what the beacons tell of: %w", err)
	}
	for name, g := range s.view.groups { // nobody else works on s
		if g.Removed {
			continue
		}
		if err := s.signBeacon(name); err != nil {
			return err
		}
	}
	return nil
}
