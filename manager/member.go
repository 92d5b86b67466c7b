// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/seal"
)

// Member is a host that joined a group, as the bus tells it.
type Member struct {
	event.Member
	// Signed is when a manager signed its entry, and Position where that stands.
	Signed   time.Time
	Position bus.Position
}

// NoMemberError says that no member has an id.
type NoMemberError struct{ ID string }

func (e *NoMemberError) Error() string {
	return fmt.Sprintf("there is no member %q: `keyturn replica ls` lists them; one that is revoked goes by its whole id", e.ID)
}

// Members returns the members of a group, of all groups if that is "", by group,
// name and id, revoked ones included. One that cannot be read is an error, and
// the others are returned nevertheless.
func (m *Manager) Members(ctx context.Context, group string) ([]*Member, error) {
	scope := event.MemberScope
	if group != "" {
		if err := event.CheckName(group); err != nil {
			return nil, &InvalidError{err.Error()}
		}
		scope += "/" + group
	}
	all, err := list[*event.Member](ctx, m, scope)
	members := make([]*Member, 0, len(all))
	for found := range maps.Values(all) {
		members = append(members, &Member{*found.body, found.signed, found.position})
	}
	slices.SortFunc(members, func(a, b *Member) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return members, err
}

// FindMember returns the member whose id starts with prefix, or whose host's
// name it is. Revoked ones are found by their whole id only. The error may be a
// *NoMemberError or an *AmbiguousError.
func (m *Manager) FindMember(ctx context.Context, prefix string) (*Member, error) {
	members, err := m.Members(ctx, "")
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(members, func(h *Member) bool { return h.ID == prefix }); i >= 0 {
		return members[i], nil
	}
	members = slices.DeleteFunc(members, func(h *Member) bool {
		fits := prefix != "" && (strings.HasPrefix(h.ID, prefix) || h.Name == prefix)
		return !fits || !h.Revoked.IsZero()
	})
	switch len(members) {
	case 0:
		return nil, &NoMemberError{prefix}
	case 1:
		return members[0], nil
	}
	e := &AmbiguousError{Prefix: prefix}
	for _, h := range members {
		e.IDs = append(e.IDs, h.ID)
	}
	return nil, e
}

// member reads one.
func (m *Manager) member(ctx context.Context, group, id string) (*Member, error) {
	h, err := fetch[*event.Member](ctx, m, event.MemberKey(group, id))
	if isNotFound(err) {
		return nil, &NoMemberError{id}
	}
	if err != nil {
		return nil, err
	}
	return &Member{*h.body, h.signed, h.position}, nil
}

// Revocation is what RevokeMember did, and what it could not do.
type Revocation struct {
	Member *Member
	// Marked is how many of the group's certificates the host could open and are
	// marked to be made anew.
	Marked int
	// Exposed says that the host knows the group's key still: until that is
	// rotated, it can open each certificate that it gets hold of, those too that
	// are made because they were marked.
	Exposed bool
}

// RevokeMember takes the rights of a member, found as by FindMember, away for
// good: no manager grants
// anything to it any more, its bus user is revoked where the engine can, and the
// certificates whose keys it could open are marked as compromised. It does not
// rotate the group's key, which takes whoever holds that: see
// [Manager.RotateGroup].
//
// Repeating it makes up for what was cut short. The error may be a
// *NoMemberError.
func (m *Manager) RevokeMember(ctx context.Context, id string) (*Revocation, error) {
	h, err := m.FindMember(ctx, id)
	if err != nil {
		return nil, err
	}
	for h.Revoked.IsZero() {
		next := *h
		next.Revoked = time.Now()
		next.Position, err = m.succeed(ctx, h.Position, h.Signed, &next.Member)
		switch {
		case err == nil:
			h = &next
			m.progress(h.ID, fmt.Sprintf("the rights of %s in group %q are taken away", h.Name, h.Group))
			m.logger.Warn("member is revoked", "member", h.ID, "name", h.Name, "group", h.Group)
		case !conflict(err):
			return nil, fmt.Errorf("revoking member %s: %w", h.ID, err)
		default:
			if h, err = m.member(ctx, h.Group, h.ID); err != nil {
				return nil, err
			}
		}
	}
	crash.Point(crash.MemberRevoked)
	r := &Revocation{Member: h}
	told := m.tellRevoked(ctx)
	crash.Point(crash.RevocationTold)
	r.Marked, err = m.markKnownTo(ctx, h)
	if key, failed := m.groupKey(ctx, h.Group); failed == nil {
		r.Exposed = slices.Contains(h.KeyIDs, key.ID())
	}
	return r, errors.Join(told, err)
}

// markKnownTo marks the certificates of a member's group that are sealed to a
// key that it was granted, or may just be being made for one.
func (m *Manager) markKnownTo(ctx context.Context, h *Member) (n int, err error) {
	certificates, err := m.inGroup(ctx, h.Group)
	bad := []error{err}
	if len(h.KeyIDs) == 0 {
		return 0, err
	}
	for _, c := range certificates {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		if key, ok := c.sealedTo(); ok && !slices.Contains(h.KeyIDs, key) {
			continue
		}
		err := m.Mark(ctx, c.ID, event.ReasonCompromised)
		var removed *RemovedError
		switch {
		case err == nil:
			n++
		case !errors.As(err, &removed): // since it was listed
			bad = append(bad, err)
		}
	}
	return n, errors.Join(bad...)
}

// sealedTo returns the group key to which the newest generation is sealed; false
// where there is none.
func (c *Managed) sealedTo() (seal.KeyID, bool) {
	if c.Certificate == nil {
		return seal.KeyID{}, false
	}
	id, err := seal.Recipient(c.Certificate.SealedKey)
	return id, err == nil
}

// tellRevoked tells Config.Revoked whose rights were taken away.
func (m *Manager) tellRevoked(ctx context.Context) error {
	if m.revoked == nil {
		return nil
	}
	members, err := m.Members(ctx, "")
	if err != nil {
		return fmt.Errorf("listing whose rights were taken away: %w", err)
	}
	t, err := m.trusted(ctx)
	if err != nil {
		return err
	}
	users := make(map[string]bool)
	for _, h := range members {
		users[h.User] = users[h.User] || h.Revoked.IsZero()
	}
	m.revoked(t.revokedUsers(users))
	return nil
}

// revokedUsers returns the bus users of former managers and of revoked members,
// given whether each user of a member is one that is not revoked. Nobody loses a
// right because another claims the same user.
func (t *trust) revokedUsers(members map[string]bool) []string {
	users := maps.Clone(members)
	for _, k := range t.former {
		users[k.User] = members[k.User]
	}
	if t.set != nil {
		for _, k := range t.set.Keys {
			users[k.User] = true
		}
	}
	var revoked []string
	for user, rightful := range users {
		if user != "" && !rightful {
			revoked = append(revoked, user)
		}
	}
	slices.Sort(revoked)
	return revoked
}
