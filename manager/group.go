// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/seal"
)

// Group is a group as the bus tells it, and what is in it.
type Group struct {
	event.Group
	// Key is the id of the key that private keys are sealed to.
	Key seal.KeyID
	// Certificates and Members are how many there are that are not removed or
	// revoked, and Waiting how many of the members have not been granted Key.
	Certificates, Members, Waiting int
	// Exposed are the members that were revoked and know Key: until the group
	// has another, they can open what they get hold of.
	Exposed []*Member
}

// AddGroup makes a group known by its public key, to which the keys of its
// certificates are sealed. Adding the same group and key again does nothing;
// another key for the same name is an error. The name of a removed group can be
// used for a new one.
func (m *Manager) AddGroup(ctx context.Context, name string, key *seal.PublicKey) error {
	for {
		old, at, err := get[*event.Group](ctx, m, event.GroupKey(name))
		switch {
		case isNotFound(err) || err == nil && old.Removed:
			_, err = m.append(ctx, at, &event.Group{Name: name, Key: key.Bytes()})
		case err == nil && !bytes.Equal(old.Key, key.Bytes()):
			err = &InvalidError{"it exists with another key: what replaces a group's key is a rotation"}
		}
		if conflict(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("adding group %q: %w", name, err)
		}
		crash.Point(crash.GroupMade)
		return nil
	}
}

// group reads a group that is there.
func (m *Manager) group(ctx context.Context, name string) (*event.Group, bus.Position, error) {
	g, at, err := get[*event.Group](ctx, m, event.GroupKey(name))
	if isNotFound(err) || err == nil && g.Removed {
		return nil, at, &InvalidError{fmt.Sprintf("there is no group %q: `keyturn group mk %s` makes it, and `keyturn group ls` lists what there is", name, name)}
	}
	return g, at, err
}

func (m *Manager) groupKey(ctx context.Context, name string) (*seal.PublicKey, error) {
	g, _, err := m.group(ctx, name)
	if err != nil {
		return nil, err
	}
	return seal.NewPublicKey(g.Key)
}

// Groups returns the groups that are not removed, by name, with what is in
// them. What cannot be read is an error, and the rest is returned nevertheless.
func (m *Manager) Groups(ctx context.Context) ([]*Group, error) {
	groups, bad := list[*event.Group](ctx, m, event.GroupsScope)
	certificates, err := m.List(ctx)
	bad = errors.Join(bad, err)
	members, err := m.Members(ctx, "")
	bad = errors.Join(bad, err)
	var result []*Group
	for _, found := range groups {
		if found.body.Removed {
			continue
		}
		key, err := seal.NewPublicKey(found.body.Key)
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		g := &Group{Group: *found.body, Key: key.ID()}
		for _, c := range certificates {
			if c.Spec.Group == g.Name {
				g.Certificates++
			}
		}
		for _, member := range members {
			if member.Group == g.Name {
				g.count(member)
			}
		}
		result = append(result, g)
	}
	slices.SortFunc(result, func(a, b *Group) int { return cmp.Compare(a.Name, b.Name) })
	return result, bad
}

func (g *Group) count(member *Member) {
	granted := slices.Contains(member.KeyIDs, g.Key)
	switch {
	case member.Revoked.IsZero():
		g.Members++
		if !granted {
			g.Waiting++
		}
	case granted:
		g.Exposed = append(g.Exposed, member)
	}
}

// RemoveGroup ends a group in which nothing is left. While it has certificates
// that are not removed or members that are not revoked, the error names them.
func (m *Manager) RemoveGroup(ctx context.Context, name string) error {
	for {
		g, at, err := m.group(ctx, name)
		if err != nil {
			return err
		}
		if err := m.unused(ctx, name); err != nil {
			return err
		}
		next := *g
		next.Removed = true
		_, err = m.append(ctx, at, &next)
		crash.Point(crash.GroupRemoved)
		if conflict(err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("removing group %q: %w", name, err)
		}
		m.logger.Info("group is removed", "group", name)
		return nil
	}
}

// unused returns an error that says what is left in a group.
func (m *Manager) unused(ctx context.Context, name string) error {
	certificates, err := m.inGroup(ctx, name)
	if err != nil {
		return err
	}
	members, err := m.Members(ctx, name)
	if err != nil {
		return err
	}
	var left []string
	for _, c := range certificates {
		left = append(left, fmt.Sprintf("certificate %s (%s)", c.ID, short(c.Spec.Names)))
	}
	for _, h := range members {
		if h.Revoked.IsZero() {
			left = append(left, fmt.Sprintf("member %s (%s)", h.ID, h.Name))
		}
	}
	if len(left) == 0 {
		return nil
	}
	const most = 10
	more := ""
	if len(left) > most {
		left, more = left[:most], fmt.Sprintf(" and %d more", len(left)-most)
	}
	return &InvalidError{fmt.Sprintf("group %q is in use: remove or revoke what is left in it first: %s%s", name, strings.Join(left, ", "), more)}
}

// inGroup returns the group's certificates that are not removed. One that cannot
// be read may be the group's: the error is then not nil.
func (m *Manager) inGroup(ctx context.Context, name string) ([]*Managed, error) {
	list, err := m.List(ctx)
	return slices.DeleteFunc(list, func(c *Managed) bool { return c.Spec.Group != name }), err
}

// A found is what stands under a key.
type found[B event.Body] struct {
	body     B
	signed   time.Time
	position bus.Position
}

// list reads all entries of one type in a scope that managers signed. One that
// cannot be read is an error, and the others are returned nevertheless.
func list[B event.Body](ctx context.Context, m *Manager, scope string) (map[string]found[B], error) {
	all := make(map[string]found[B])
	var bad []error
	err := m.readLog(ctx, scope, func(u bus.Update) {
		if u.CaughtUp {
			return
		}
		e, err := m.open(ctx, u.Key, u.Data)
		if err != nil {
			bad = append(bad, disbelief("the entry "+u.Key, err))
			return
		}
		if body, ok := e.Body.(B); ok {
			all[u.Key] = found[B]{body, e.Time, u.Position}
		}
	})
	if err != nil {
		return nil, &busError{fmt.Errorf("listing %s: %w", scope, err)}
	}
	return all, errors.Join(bad...)
}
