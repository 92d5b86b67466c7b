// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// admitAll answers the requests, and returns how many new members have keys.
func (h *hosts) admitAll(ctx context.Context) (granted int, err error) {
	h.mu.Lock()
	var waiting []bus.Entry
	for id, request := range h.requests {
		if _, joined := h.members[id]; joined {
			delete(h.requests, id)
			continue
		}
		waiting = append(waiting, request)
	}
	h.mu.Unlock()
	slices.SortFunc(waiting, func(a, b bus.Entry) int { return strings.Compare(a.Key, b.Key) })
	var bad []error
	for _, request := range waiting {
		id := path.Base(request.Key)
		if h.only != "" && !h.of(request) {
			continue
		}
		member, err := h.m.admit(ctx, request, h.keys)
		for conflict(err) && ctx.Err() == nil {
			member, err = h.m.admit(ctx, request, h.keys)
		}
		var refused *refusedError
		switch {
		case err == nil:
			if len(member.Keys) > 0 {
				granted++
			}
			h.mu.Lock()
			h.memberLocked(&member.Member)
			h.mu.Unlock()
		case errors.As(err, &refused):
			h.m.logger.Warn("a request to join is refused", "id", id, "error", err)
			h.mu.Lock()
			if h.requests[id].Position == request.Position {
				delete(h.requests, id)
			}
			h.mu.Unlock()
		default:
			bad = append(bad, fmt.Errorf("the request %s to join: %w", id, err))
		}
	}
	return granted, errors.Join(bad...)
}

// of reports whether a request says that it is for the only group.
func (h *hosts) of(request bus.Entry) bool {
	e, err := event.Trusted(h.m.tenant, request.Data)
	if err != nil {
		return false
	}
	r, ok := e.Body.(*event.JoinRequest)
	return ok && r.Group == h.only
}

// grantAll gives the members what they lack of the keys that are held, and
// returns how many got any.
func (h *hosts) grantAll(ctx context.Context) (granted int, err error) {
	var bad []error
	for _, g := range h.live() {
		held, err := h.keys(g.Name)
		if err != nil {
			bad = append(bad, fmt.Errorf("the keys of group %q: %w", g.Name, err))
			continue
		}
		var n atomic.Int64
		err = each(ctx, h.lacking(g, held), func(id string) error {
			got, err := h.m.grant(ctx, g.Name, id, held)
			if got {
				n.Add(1)
			}
			return err
		})
		granted += int(n.Load())
		bad = append(bad, err)
	}
	return granted, errors.Join(bad...)
}

// live returns the groups that are looked after and not removed.
func (h *hosts) live() []*event.Group {
	h.mu.Lock()
	defer h.mu.Unlock()
	var groups []*event.Group
	for _, g := range h.groups {
		if !g.Removed && (h.only == "" || g.Name == h.only) {
			groups = append(groups, g)
		}
	}
	slices.SortFunc(groups, func(a, b *event.Group) int { return strings.Compare(a.Name, b.Name) })
	return groups
}

// lacking returns the ids of the group's members that are not revoked and lack
// one of the held keys that is of use.
func (h *hosts) lacking(g *event.Group, held []*seal.PrivateKey) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ids []string
	for id, s := range h.members {
		if s.group != g.Name || s.revoked {
			continue
		}
		lacks := func(k *seal.PrivateKey) bool {
			key := k.Public().ID()
			return !slices.Contains(s.keys, key) && !isFormer(g.Retired, key)
		}
		if slices.ContainsFunc(held, lacks) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// retireAll goes on with rotations, and retires the former keys that nothing
// needs any more: once in a while, since most of the time there are none.
func (h *hosts) retireAll(ctx context.Context) error {
	h.mu.Lock()
	soon := !h.retired.IsZero() && time.Since(h.retired) < tendEvery
	if !soon {
		h.retired = time.Now()
	}
	h.mu.Unlock()
	if soon || h.only != "" {
		return nil
	}
	var bad []error
	for _, g := range h.live() {
		if h.former(g) {
			bad = append(bad, h.m.retire(ctx, g.Name))
		}
	}
	return errors.Join(bad...)
}

// former reports whether a group has a former key, or a member has one that is
// retired.
func (h *hosts) former(g *event.Group) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.members {
		if s.group == g.Name && !s.revoked && slices.ContainsFunc(s.keys, func(k seal.KeyID) bool { return isFormer(g.Retired, k) }) {
			return true
		}
	}
	return len(g.Retiring) > 0
}

// tendHosts is one pass of what Run does for those who join.
func (m *Manager) tendHosts(ctx context.Context) error {
	h := newHosts(m, m.keys)
	if err := h.readAll(ctx); err != nil {
		return err
	}
	_, err := h.tend(ctx)
	return err
}
