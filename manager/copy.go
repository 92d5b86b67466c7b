// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// A place is what stands for replicas under a certificate's key, and where.
type place struct {
	event.Version
	at bus.Position
}

// placeOf returns what Run has seen for replicas of a certificate; nil if nobody runs,
// or not all was seen.
func (m *Manager) placeOf(id string) *place {
	s := m.running.Load()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.caught {
		return nil
	}
	p := s.copies[id]
	return &p
}

// placed notes what this manager has put for replicas.
func (m *Manager) placed(id string, p place) {
	s := m.running.Load()
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copies[id].Less(p.Version) {
		s.copies[id] = p
	}
}

// copyOver is copy of a generation that was just committed, in place of what was
// seen before that; nil if nothing was. As in copy it was the copy first and the
// state, by its commit, second: another one who changed the state since, and has
// copied that, has put it where this append expects the old one.
func (m *Manager) copyOver(ctx context.Context, old *place, c *Managed) error {
	if old == nil || !old.Less(c.Version) {
		return m.copy(ctx, c)
	}
	at, err := m.log.Append(ctx, event.CertificateKey(c.Spec.Group, c.ID), old.at, c.Current)
	crash.Point(crash.CopiedOver)
	switch {
	case conflict(err):
		return m.copy(ctx, c)
	case err == nil:
		m.placed(c.ID, place{c.Version, at})
	}
	return err
}

// copy makes the group's entry what the state says, unless it is that or newer
// already.
func (m *Manager) copy(ctx context.Context, c *Managed) error {
	key := event.CertificateKey(c.Spec.Group, c.ID)
	for {
		// The copy first and the state second: a state that changes afterwards is
		// copied by whoever changed it, and then this append conflicts.
		old, err := m.newest(ctx, key)
		if err != nil {
			return err
		}
		if c, err = m.Get(ctx, c.ID); err != nil {
			return err
		}
		if len(c.Current) == 0 || !m.copied(ctx, key, old).Less(c.Version) {
			return nil
		}
		crash.Point(crash.Copying)
		if _, err := m.log.Append(ctx, key, old.Position, c.Current); !conflict(err) {
			crash.Point(crash.Copied)
			return err
		}
	}
}

// copied returns the version of a group's entry; the zero Version if there is
// none that can be believed.
func (m *Manager) copied(ctx context.Context, key string, entry bus.Entry) event.Version {
	if len(entry.Data) == 0 {
		return event.Version{}
	}
	e, err := m.open(ctx, key, entry.Data)
	if err != nil {
		return event.Version{}
	}
	switch b := e.Body.(type) {
	case *event.Certificate:
		return b.Version
	case *event.Removal:
		return b.Version
	}
	return event.Version{}
}
