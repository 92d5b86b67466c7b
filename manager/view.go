// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// A view is what is known of the fleet. It is filled from its sources, either
// once, or by following them.
type view struct {
	m *Manager
	// proofs, if not nil, is handed what a member of a group gave as proofs. It
	// must not wait.
	proofs func(group, member string, proofs [][]byte)
	// changed, if not nil, is called when something about members was taken. It
	// must not wait.
	changed func()

	mu      sync.Mutex
	certs   map[string]*Managed     // guarded by mu; by id, removed ones too
	groups  map[string]*event.Group // guarded by mu; by name
	hosts   map[string]*host        // guarded by mu; by key, revoked ones too
	beacons map[string]beacon       // guarded by mu; by group
	anew    map[string]bool         // guarded by mu; keys of members seen since the log was replaced; nil if all are
	caught  map[string]bool         // guarded by mu; scopes whose caught-up mark came
	woken   chan struct{}           // guarded by mu; closed at the next change of members; nil if nobody waits
	bad     []error                 // guarded by mu; bounded
}

// A host is a member with what it reported.
type host struct {
	*event.Member
	key   *seal.VerifyKey
	pages []page // by number; zero where none came
	// refused is why its newest receipt is not believed, "" if it is.
	refused string
}

// A beacon is the newest of a group.
type beacon struct {
	at  time.Time // when it was signed, by its manager's clock; zero: there is none
	due time.Time // when the next is, with its monotonic reading
}

func newView(m *Manager) *view {
	return &view{
		m: m, certs: make(map[string]*Managed), groups: make(map[string]*event.Group),
		hosts: make(map[string]*host), beacons: make(map[string]beacon), caught: make(map[string]bool),
	}
}

// members are where hosts and their receipts come from, the hosts first: all
// groups', or one's.
func (v *view) members(ctx context.Context, group ...string) []source {
	within := func(scope string) string { return strings.Join(append([]string{scope}, group...), "/") }
	list := []source{{from: v.m.log, scope: within(event.MemberScope), take: with(ctx, v.takeMember), lost: v.lostMembers}}
	if v.m.board != nil {
		list = append(list, source{from: v.m.board, scope: within(event.ReceiptScope), take: with(ctx, v.takeReceipt)})
	}
	return list
}

// sources are where all but the states comes from.
func (v *view) sources(ctx context.Context) []source {
	list := append(v.members(ctx), source{from: v.m.log, scope: event.GroupsScope, take: with(ctx, v.takeGroup)})
	if v.m.board != nil {
		list = append(list, source{from: v.m.board, scope: event.BeaconScope, take: with(ctx, v.takeBeacon)})
	}
	return list
}

// ready reports whether all sources were read once, and the states.
func (v *view) ready() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	want := 3
	if v.m.board != nil {
		want = 5
	}
	return len(v.caught) == want
}

// problems are the entries that could not be read.
func (v *view) problems() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(v.bad...)
}

// maxProblems bounds what one look complains about.
const maxProblems = 10

// problem notes an entry that a manager should have written.
func (v *view) problem(key string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.bad) < maxProblems {
		v.bad = append(v.bad, fmt.Errorf("the entry %s is left out: %w", key, err))
	}
}

// mark notes that all that was there of a scope has been read.
func (v *view) mark(scope string) {
	v.mu.Lock()
	v.caught[scope] = true
	if scope == event.StateScope {
		v.trimLocked()
	}
	v.mu.Unlock()
	v.tell()
}

func (v *view) tell() {
	if v.changed != nil {
		v.changed()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.woken != nil {
		close(v.woken)
		v.woken = nil
	}
}

// next returns what is closed when something about members is taken next.
func (v *view) next() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.woken == nil {
		v.woken = make(chan struct{})
	}
	return v.woken
}

// membersReadLocked reports whether the members and their receipts were read once.
func (v *view) membersReadLocked() bool {
	return v.caught[event.MemberScope] && v.caught[event.ReceiptScope]
}

func (v *view) takeState(ctx context.Context, u bus.Update) {
	if u.CaughtUp {
		v.mark(event.StateScope)
		return
	}
	c, err := v.m.decode(ctx, u.Entry)
	if err != nil {
		v.problem(u.Key, err)
		return
	}
	v.certificate(c)
}

// certificate takes a state.
func (v *view) certificate(c *Managed) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.certs[c.ID] = c
}

// forget lets go of a state that the log has lost.
func (v *view) forget(id string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.certs, id)
}

func (v *view) takeGroup(ctx context.Context, u bus.Update) {
	if u.CaughtUp {
		v.mark(event.GroupsScope)
		return
	}
	e, err := v.m.openFollowed(ctx, u.Entry)
	if err != nil {
		v.problem(u.Key, err)
		return
	}
	if g, ok := e.Body.(*event.Group); ok {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.groups[g.Name] = g
	}
}

func (v *view) takeMember(ctx context.Context, u bus.Update) {
	if u.CaughtUp {
		v.forgetMembers()
		v.mark(event.MemberScope)
		return
	}
	if err := v.member(ctx, u.Entry); err != nil {
		v.problem(u.Key, err)
	}
	v.tell()
}

func (v *view) member(ctx context.Context, entry bus.Entry) error {
	e, err := v.m.openFollowed(ctx, entry)
	if err != nil {
		return err
	}
	member, ok := e.Body.(*event.Member)
	if !ok {
		return event.ErrUnsupported
	}
	key, err := seal.NewVerifyKey(member.SignKey)
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	h := v.hosts[entry.Key]
	if h == nil {
		h = new(host)
		v.hosts[entry.Key] = h
	}
	h.Member, h.key = member, key
	if v.anew != nil {
		v.anew[entry.Key] = true
	}
	if !member.Revoked.IsZero() {
		h.pages = nil
	}
	return nil
}

// lostMembers is called when the members are about to be read anew, because the
// log was replaced or went back.
func (v *view) lostMembers() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.anew = make(map[string]bool)
}

// forgetMembers lets go of the members that such a log has no more.
func (v *view) forgetMembers() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.anew != nil {
		maps.DeleteFunc(v.hosts, func(key string, _ *host) bool { return !v.anew[key] })
	}
	v.anew = nil
}

// live reports whether a host's receipts count.
func (h *host) live() bool { return h.Revoked.IsZero() }

func (v *view) takeBeacon(ctx context.Context, u bus.Update) {
	if u.CaughtUp {
		v.mark(event.BeaconScope)
		return
	}
	e, err := v.m.open(ctx, u.Key, u.Data)
	if err != nil {
		return // a replica does not believe it either
	}
	if b, ok := e.Body.(*event.Beacon); ok {
		v.beacon(b.Group, e.Time)
	}
}

// beacon takes a group's beacon if it is newer than the one that is known.
func (v *view) beacon(group string, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if at.After(v.beacons[group].at) {
		v.beacons[group] = beacon{at, v.m.dueAfter()}
	}
}

// signed takes a beacon of this manager's own, whatever its clock says.
func (v *view) signed(group string, at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if old := v.beacons[group].at; old.After(at) {
		at = old
	}
	v.beacons[group] = beacon{at, v.m.dueAfter()}
}
