// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/seal"
)

// RetireKeys retires the former keys of a group to which no certificate is sealed
// any more, neither in its state nor where it stands for replicas: the members
// lose them. If there are none, it does nothing. It takes no private key.
func (m *Manager) RetireKeys(ctx context.Context, group string) error {
	for {
		g, at, err := m.group(ctx, group)
		if err != nil {
			return err
		}
		next, err := m.withoutUnneeded(ctx, g)
		if err != nil {
			return fmt.Errorf("retiring the former keys of group %q: %w", group, err)
		}
		if next != g {
			_, err = m.append(ctx, at, next)
			if conflict(err) {
				continue
			}
			if err != nil {
				return fmt.Errorf("retiring the former keys of group %q: %w", group, err)
			}
			crash.Point(crash.KeyRetired)
			n := len(g.Retiring) - len(next.Retiring)
			m.progress(group, fmt.Sprintf("%s retired", plural.Of(n, "former key")))
			m.logger.Info("former keys of a group are retired", "group", group, "retired", n, "retiring", len(next.Retiring))
		}
		return m.takeBack(ctx, next)
	}
}

// withoutUnneeded returns the group as it is once the former keys are retired
// that nothing needs; g itself if there are none.
func (m *Manager) withoutUnneeded(ctx context.Context, g *event.Group) (*event.Group, error) {
	if len(g.Retiring) == 0 {
		return g, nil
	}
	needed, err := m.needed(ctx, g)
	if err != nil {
		return nil, err
	}
	next := *g
	next.Retiring, next.Retired = nil, slices.Clone(g.Retired)
	for _, k := range g.Retiring {
		if needed[k.ID] {
			next.Retiring = append(next.Retiring, k)
		} else {
			next.Retired = append(next.Retired, event.FormerKey{ID: k.ID, At: time.Now(), Reason: k.Reason})
		}
	}
	if len(next.Retiring) == len(g.Retiring) {
		return g, nil
	}
	next.Retired = next.Retired[max(0, len(next.Retired)-event.MaxHistory):]
	return &next, nil
}

// needed returns the keys of a group to which something is sealed, or may be by
// who read the group before it had another key.
func (m *Manager) needed(ctx context.Context, g *event.Group) (map[seal.KeyID]bool, error) {
	list, err := m.inGroup(ctx, g.Name)
	if err != nil {
		return nil, err
	}
	needed, live := make(map[seal.KeyID]bool), make(map[string]*Managed)
	for _, c := range list {
		live[c.ID] = c
		if id, ok := c.sealedTo(); ok {
			needed[id] = true
			continue
		}
		for _, k := range g.Retiring { // who makes the first generation may have read the key, unless a mark has voided that
			if c.Mark == nil || c.Mark.At.Before(k.At) {
				needed[k.ID] = true
			}
		}
	}
	behind, err := m.behind(ctx, g.Name, live)
	if err != nil {
		return nil, err
	}
	return needed, each(ctx, behind, func(c *Managed) error { return m.copy(ctx, c) })
}

// behind returns those of a group's certificates whose copy is sealed to another
// key than the newest generation: whoever made that died before it was copied.
func (m *Manager) behind(ctx context.Context, group string, live map[string]*Managed) ([]*Managed, error) {
	var list []*Managed
	err := m.readLog(ctx, event.GroupScope(group), func(u bus.Update) {
		c := live[path.Base(u.Key)]
		if u.CaughtUp || c == nil {
			return
		}
		e, err := m.open(ctx, u.Key, u.Data)
		if err != nil {
			return // no replica believes it
		}
		want, _ := c.sealedTo()
		if copied, ok := e.Body.(*event.Certificate); ok {
			if id, err := seal.Recipient(copied.SealedKey); err == nil && id != want {
				list = append(list, c)
			}
		}
	})
	return list, err
}

// takeBack takes the retired keys from the members.
func (m *Manager) takeBack(ctx context.Context, g *event.Group) error {
	members, err := m.Members(ctx, g.Name)
	if err != nil {
		return err
	}
	return each(ctx, members, func(h *Member) error {
		for h.Revoked.IsZero() && h.dropRetired(g) {
			_, err := m.succeed(ctx, h.Position, h.Signed, &h.Member)
			crash.Point(crash.KeyTakenBack)
			if !conflict(err) {
				return err
			}
			if h, err = m.member(ctx, h.Group, h.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropRetired leaves out a member's keys that are retired, and reports whether
// there were any.
func (h *Member) dropRetired(g *event.Group) bool {
	var keys [][]byte
	var ids []seal.KeyID
	for i, id := range h.KeyIDs {
		if !isFormer(g.Retired, id) {
			keys, ids = append(keys, h.Keys[i]), append(ids, id)
		}
	}
	dropped := len(ids) < len(h.KeyIDs)
	h.Keys, h.KeyIDs = keys, ids
	return dropped
}

// retire goes on with a rotation that was cut short, and retires what is not
// needed any more.
func (m *Manager) retire(ctx context.Context, group string) error {
	g, _, err := m.group(ctx, group)
	if err != nil {
		return err
	}
	stale, err := m.stale(ctx, group)
	if err != nil {
		return err
	}
	var bad []error
	for _, c := range stale {
		if c.Mark == nil && c.Generation > 0 {
			bad = append(bad, m.markFormer(ctx, g, c))
		}
	}
	return errors.Join(errors.Join(bad...), m.RetireKeys(ctx, group))
}

// markFormer marks a certificate that is sealed to a former key of its group,
// for the reason for which that is one.
func (m *Manager) markFormer(ctx context.Context, g *event.Group, c *Managed) error {
	id, _ := c.sealedTo()
	for _, k := range g.Retiring {
		if k.ID != id {
			continue
		}
		err := m.mark(ctx, c, k.Reason)
		if conflict(err) {
			return nil // it changes: another look will tell
		}
		return err
	}
	return nil
}
