// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// tendEvery is how often hosts are looked after where nothing new was seen: keys
// may be at hand that were not, or a certificate no longer need a former key.
const tendEvery = time.Minute

// hosts is who joined or wants to, what is left to do for them, and for the keys
// of their groups.
type hosts struct {
	m    *Manager
	keys keyring
	only string // the one group that is looked after; "" is all
	wake chan struct{}

	mu       sync.Mutex
	caught   map[string]bool         // guarded by mu; scopes that were read once
	groups   map[string]*event.Group // guarded by mu; by name
	members  map[string]standing     // guarded by mu; by id
	requests map[string]bus.Entry    // guarded by mu; by id, those without a member
	said     map[string]string       // guarded by mu; by key or group, what was complained about last
	told     []string                // guarded by mu; the revoked users; nil before they were told
	retired  time.Time               // guarded by mu; when former keys were last looked at
}

// A standing is what is kept in memory of a member.
type standing struct {
	group, user string
	keys        []seal.KeyID
	revoked     bool
}

func newHosts(m *Manager, keys keyring) *hosts {
	return &hosts{
		m: m, keys: keys, wake: make(chan struct{}, 1), caught: make(map[string]bool), groups: make(map[string]*event.Group),
		members: make(map[string]standing), requests: make(map[string]bus.Entry), said: make(map[string]string),
	}
}

// sources are where all that comes from.
func (h *hosts) sources(ctx context.Context) []source {
	return []source{
		{from: h.m.log, scope: confScope, take: with(ctx, h.takeConf), lost: func() { lose(h, h.groups) }},
		{from: h.m.log, scope: event.MemberScope, take: with(ctx, h.takeMember), lost: func() { lose(h, h.members) }},
		{from: h.m.log, scope: event.JoinScope, take: h.takeRequest, lost: func() { lose(h, h.requests) }},
	}
}

// lose forgets what is known of a scope, because it is taken again from the start.
func lose[V any](h *hosts, known map[string]V) {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(known)
}

// readAll reads the sources once.
func (h *hosts) readAll(ctx context.Context) error {
	for _, from := range h.sources(ctx) {
		if _, err := h.m.read(ctx, from, bus.Position{}); err != nil {
			return fmt.Errorf("reading %s: %w", from.scope, err)
		}
	}
	return nil
}

// run looks after the hosts until ctx ends.
func (h *hosts) run(ctx context.Context) {
	for {
		wait := tendEvery
		if h.ready() {
			_, err := h.tend(ctx)
			var gone *busError
			if errors.As(err, &gone) {
				wait = afterFailure
			}
			if ctx.Err() == nil {
				h.complain("", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-h.wake:
		}
	}
}

// ready reports whether all sources were read once.
func (h *hosts) ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.caught) == 3
}

func (h *hosts) takeConf(ctx context.Context, u bus.Update) {
	switch {
	case u.CaughtUp:
		h.mark(confScope)
	case u.Key == event.ManagersKey:
		// The newest, whichever this is: it may be known already, and then a list
		// that comes late is no older one put in its place.
		_, _ = patiently(ctx, func() (*trust, error) { return h.m.lookUpManagers(ctx) })
	case bus.InScope(u.Key, event.GroupsScope):
		e, err := h.m.openFollowed(ctx, u.Entry)
		if err != nil {
			h.complain(u.Key, err)
			return
		}
		if g, ok := e.Body.(*event.Group); ok {
			h.mu.Lock()
			h.groups[g.Name] = g
			h.mu.Unlock()
		}
	default:
		return
	}
	notify(h.wake)
}

func (h *hosts) takeMember(ctx context.Context, u bus.Update) {
	if u.CaughtUp {
		h.mark(event.MemberScope)
		return
	}
	e, err := h.m.openFollowed(ctx, u.Entry)
	if err != nil {
		h.complain(u.Key, err)
		return
	}
	member, ok := e.Body.(*event.Member)
	if !ok {
		return
	}
	h.mu.Lock()
	h.memberLocked(member)
	h.mu.Unlock()
	notify(h.wake)
}

func (h *hosts) memberLocked(m *event.Member) {
	h.members[m.ID] = standing{m.Group, m.User, m.KeyIDs, !m.Revoked.IsZero()}
	delete(h.requests, m.ID)
}

func (h *hosts) takeRequest(u bus.Update) {
	if u.CaughtUp {
		h.mark(event.JoinScope)
		return
	}
	id := path.Base(u.Key)
	if event.CheckID(id) != nil {
		return
	}
	h.mu.Lock()
	if _, joined := h.members[id]; !joined {
		h.requests[id] = u.Entry
	}
	h.mu.Unlock()
	notify(h.wake)
}

func (h *hosts) mark(scope string) {
	h.mu.Lock()
	h.caught[scope] = true
	h.mu.Unlock()
	notify(h.wake)
}

// complain logs what is wrong with something, once until it is another thing or
// nothing.
func (h *hosts) complain(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	h.mu.Lock()
	again := h.said[what] == text
	h.said[what] = text
	h.mu.Unlock()
	if !again && err != nil {
		h.m.logger.Warn("something is left undone for hosts that join", "error", err)
	}
}

// tend does what is left to do, and returns how many members were given keys.
func (h *hosts) tend(ctx context.Context) (granted int, err error) {
	h.tellRevoked()
	granted, err = h.admitAll(ctx)
	more, failed := h.grantAll(ctx)
	return granted + more, errors.Join(err, failed, h.retireAll(ctx))
}

// tellRevoked tells whose rights were taken away, if that has changed.
func (h *hosts) tellRevoked() {
	if h.m.revoked == nil || h.only != "" {
		return
	}
	h.mu.Lock()
	users := make(map[string]bool)
	for _, s := range h.members {
		users[s.user] = users[s.user] || !s.revoked
	}
	revoked := append([]string{}, h.m.trust.Load().revokedUsers(users)...)
	again := h.told != nil && slices.Equal(h.told, revoked)
	h.told = revoked
	h.mu.Unlock()
	if !again {
		h.m.revoked(slices.Clone(revoked))
	}
}
