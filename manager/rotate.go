// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/seal"
)

// isFormer reports whether a key is among former ones.
func isFormer(keys []event.FormerKey, id seal.KeyID) bool {
	return slices.ContainsFunc(keys, func(k event.FormerKey) bool { return k.ID == id })
}

// rounds is how often it is looked for what is still sealed to a former key, or
// signed with one: what was under way at the first look may be.
const rounds = 3

// RotateGroup gives a group another key. keys are the group's private keys, the
// new one first, and must be kept where they can be read again before this is
// called: the new key opens what is made from now on. The reason is
// event.ReasonGroupKey, or event.ReasonCompromised if somebody who should not
// knows the former key.
//
// First every member is given the new key, then the group has it, and then every
// certificate that is sealed to a former one is marked and made anew, those that
// end soonest first. Where that fails, the mark stays, the others go on, and the
// error says so: whoever runs tries again. Then the keys that nothing needs any
// more are retired.
//
// It may be killed at any time: the same call completes what was begun, and so
// does a manager that runs, once the group has the new key. Of two rotations at
// once to different keys, one is an error.
func (m *Manager) RotateGroup(ctx context.Context, name string, keys []*seal.PrivateKey, reason string) error {
	if reason != event.ReasonGroupKey && reason != event.ReasonCompromised {
		return &InvalidError{fmt.Sprintf("%q is no reason to rotate a group's key: %s and %s are", reason, event.ReasonGroupKey, event.ReasonCompromised)}
	}
	if err := m.giveNewKey(ctx, name, keys, reason); err != nil {
		return fmt.Errorf("rotating the key of group %q: %w", name, err)
	}
	for range rounds {
		stale, err := m.markStale(ctx, name, reason)
		if len(stale) == 0 && err == nil {
			break
		}
		m.progress(name, fmt.Sprintf("making anew what is sealed to a former key: %s", plural.Of(len(stale), "certificate")))
		if err = errors.Join(err, m.renewStale(ctx, name, stale, reason)); err != nil {
			return fmt.Errorf("group %q has another key, but not all certificates were made anew: %w", name, err)
		}
	}
	return m.RetireKeys(ctx, name)
}

// giveNewKey gives the new key to the members and then to the group, unless it
// has it.
func (m *Manager) giveNewKey(ctx context.Context, name string, keys []*seal.PrivateKey, reason string) error {
	for {
		g, at, err := m.group(ctx, name)
		if err != nil {
			return err
		}
		old, err := seal.NewPublicKey(g.Key)
		if err != nil {
			return err
		}
		if err := fitForRotation(g, old, keys); err != nil {
			return err
		}
		if err := m.grantMembers(ctx, name, keys); err != nil {
			return err
		}
		if next := keys[0].Public(); !next.Equal(old) {
			m.progress(name, fmt.Sprintf("the members have key %s", next.ID()))
			rotated := *g
			rotated.Key = next.Bytes()
			rotated.Retiring = append(slices.Clone(g.Retiring), event.FormerKey{ID: old.ID(), At: time.Now(), Reason: reason})
			_, err := m.append(ctx, at, &rotated)
			if conflict(err) {
				continue
			}
			if err != nil {
				return err
			}
			crash.Point(crash.KeyTurned)
			m.progress(name, fmt.Sprintf("the group has key %s in place of %s", next.ID(), old.ID()))
			m.logger.Warn("group has another key", "group", name, "key", next.ID(), "former", old.ID(), "reason", reason)
			continue // for those who became members meanwhile
		}
		return nil
	}
}

// fitForRotation returns an error unless the first of keys can be the group's
// next key, or is its key.
func fitForRotation(g *event.Group, current *seal.PublicKey, keys []*seal.PrivateKey) error {
	if len(keys) == 0 {
		return &InvalidError{"no key is given"}
	}
	next := keys[0].Public()
	switch {
	case next.Equal(current):
		return nil
	case isFormer(g.Retiring, next.ID()) || isFormer(g.Retired, next.ID()):
		return &InvalidError{fmt.Sprintf("the first key, %s, was the group's before: a new one is needed", next.ID())}
	case !slices.ContainsFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().Equal(current) }):
		return &InvalidError{fmt.Sprintf("the group's key, %s, is not among those given: has it been rotated from elsewhere?", current.ID())}
	case len(g.Retiring) >= event.MaxKeys-1:
		return &InvalidError{fmt.Sprintf("%s still needed: make anew first what is sealed to them", plural.Of(len(g.Retiring), "former key"))}
	}
	return nil
}

// grantMembers gives the members of a group what they lack of its keys.
func (m *Manager) grantMembers(ctx context.Context, name string, keys []*seal.PrivateKey) error {
	members, err := m.Members(ctx, name)
	if err != nil {
		return err
	}
	return each(ctx, members, func(h *Member) error {
		_, err := m.grant(ctx, name, h.ID, keys)
		return err
	})
}

// stale returns the group's certificates that are not sealed to its key, and
// those that have no generation yet: one may be under way that will not be.
func (m *Manager) stale(ctx context.Context, name string) ([]*Managed, error) {
	key, err := m.groupKey(ctx, name)
	if err != nil {
		return nil, err // without it, all would seem to be
	}
	list, err := m.inGroup(ctx, name)
	return slices.DeleteFunc(list, func(c *Managed) bool {
		id, ok := c.sealedTo()
		return ok && id == key.ID()
	}), err
}

// markStale marks what is sealed to a former key of a group, and returns it, what
// ends soonest first. Whatever was under way before is void: it may have read
// the former key. What cannot be read or marked is an error, and the others are
// returned nevertheless.
func (m *Manager) markStale(ctx context.Context, name, reason string) ([]*Managed, error) {
	list, err := m.stale(ctx, name)
	err = errors.Join(err, each(ctx, list, func(c *Managed) error { return m.void(ctx, c, reason) }))
	list = slices.DeleteFunc(list, func(c *Managed) bool { return c.Generation == 0 }) // its maker goes on with it
	slices.SortFunc(list, func(a, b *Managed) int { return a.end().Compare(b.end()) })
	return list, err
}

// void marks a certificate even if it is marked already, so that no attempt that
// began before can be published, unless it has another generation meanwhile.
func (m *Manager) void(ctx context.Context, c *Managed, reason string) error {
	seen := c.Version
	for !c.Removed && c.Version == seen {
		next := c.State
		next.Mark = &event.Mark{Reason: reason, At: time.Now()}
		if c.Mark != nil && c.Mark.Reason == event.ReasonCompromised {
			next.Mark.Reason = c.Mark.Reason
		}
		next.Failure = nil
		_, err := m.append(ctx, c.Position, &next)
		if err == nil {
			crash.Point(crash.Voided)
			return nil
		}
		if !conflict(err) {
			return fmt.Errorf("marking %s: %w", c.ID, err)
		}
		if c, err = m.Get(ctx, c.ID); err != nil {
			return err
		}
	}
	return nil
}

// renewStale makes the certificates anew, a few at once.
func (m *Manager) renewStale(ctx context.Context, name string, stale []*Managed, reason string) error {
	total := len(stale)
	var done atomic.Int64
	return each(ctx, stale, func(c *Managed) error {
		now, err := m.Get(ctx, c.ID)
		if err == nil && !now.Removed {
			_, err = m.renewFrom(ctx, now, c.Generation+1, reason)
		}
		var removed *RemovedError
		if err != nil && !errors.As(err, &removed) {
			return err
		}
		crash.Point(crash.SealedAnew)
		m.progress(name, fmt.Sprintf("%d of %s sealed to the new key", done.Add(1), plural.Of(total, "certificate")))
		return nil
	})
}

// RenewGroup makes every certificate of a group anew, those that end soonest
// first, for a reason that is one of event's, and returns how many were marked
// for it. Where one fails, the mark stays, the others go on, and the error says
// so: whoever runs tries again.
func (m *Manager) RenewGroup(ctx context.Context, name, reason string) (marked int, err error) {
	if _, _, err := m.group(ctx, name); err != nil {
		return 0, err
	}
	marked, err = m.MarkGroup(ctx, name, reason)
	list, listErr := m.inGroup(ctx, name)
	list = slices.DeleteFunc(list, func(c *Managed) bool { return c.Mark == nil })
	slices.SortFunc(list, func(a, b *Managed) int { return a.end().Compare(b.end()) })
	var made atomic.Int64
	err = errors.Join(err, listErr, each(ctx, list, func(c *Managed) error {
		_, err := m.renewFrom(ctx, c, c.Generation+1, c.Mark.Reason)
		var removed *RemovedError
		if err != nil && !errors.As(err, &removed) {
			return err
		}
		m.progress(name, fmt.Sprintf("%d of %s made anew", made.Add(1), plural.Of(len(list), "certificate")))
		return nil
	}))
	return marked, err
}
