// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/plural"
)

// ErrNoBoard means that the bus carries no reports of replicas.
var ErrNoBoard = errors.New("this bus has no board: replicas do not report on it, so nobody knows what is served")

// NotServedError says which replicas do not serve a version.
type NotServedError struct {
	ID string
	event.Version
	// Served of Of replicas do; the others are Missing.
	Served, Of int
	Missing    []MissingReplica
	// Unreported are members of the group whose replicas never reported: nothing
	// waits for them.
	Unreported []MissingReplica
	// Err is why nothing waits any longer: the context's error.
	Err error
}

// A MissingReplica is one that does not serve a version.
type MissingReplica struct {
	Member, Name string
	// Version is the newest that it holds, the zero Version if it holds none, or
	// never reported.
	event.Version
	State ReplicaState
	// Why says in a sentence what keeps it from serving.
	Why string
}

// Error names everyone, one a line.
func (e *NotServedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version %s of %s is served by %d of %s", e.Version, e.ID, e.Served, plural.Of(e.Of, "replica"))
	if e.Of == 0 {
		b.WriteString(": none of its group has ever reported; a host joins by `keyturn replica join`, and reports once a program serves from its directory")
	}
	for _, r := range e.Missing {
		fmt.Fprintf(&b, "\n  %s (%s): %s", r.Name, r.Member, r.Why)
	}
	for _, r := range e.Unreported {
		fmt.Fprintf(&b, "\n  %s (%s), not waited for: %s", r.Name, r.Member, r.Why)
	}
	return b.String()
}

// Unwrap returns the context's error.
func (e *NotServedError) Unwrap() error { return e.Err }

// Wait returns as soon as every replica of a certificate's group that ever
// reported gives the version, or a later one, to new handshakes; for a removal,
// as soon as each has taken it. Hosts that join or are revoked meanwhile count
// from then on, or no more. Members whose replicas never reported are not waited
// for: a *NotServedError names them.
//
// Progress, if not nil, is told whenever the answer changes: how many replicas
// serve it, of how many, and the hosts that do not yet. It must not wait.
//
// When ctx ends first, the error is a *NotServedError, or, where the reports
// could not be read at all, what kept them from it. It may be a *NotFoundError,
// or ErrNoBoard.
func (m *Manager) Wait(ctx context.Context, id string, version event.Version, progress func(served, of int, missing []string)) (unreported []MissingReplica, err error) {
	if m.board == nil {
		return nil, ErrNoBoard
	}
	c, err := m.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	w := waiter{id: id, version: version, group: c.Spec.Group, view: newView(m), progress: progress, wake: make(chan struct{}, 1)}
	w.view.changed = func() { notify(w.wake) }
	return w.wait(ctx)
}

// A waiter is one Wait.
type waiter struct {
	id       string
	version  event.Version
	group    string
	view     *view
	progress func(served, of int, missing []string)
	wake     chan struct{}
	told     string // what progress was told last
}

func (w *waiter) wait(ctx context.Context) (unreported []MissingReplica, err error) {
	follow, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, s := range w.view.members(follow, w.group) {
		wg.Go(func() { w.view.m.follow(follow, s) })
	}
	for {
		var ended error
		select {
		case <-w.wake:
		case <-ctx.Done():
			ended = ctx.Err()
		}
		ready, left := w.look(time.Now())
		switch {
		case ready && len(left.Missing) == 0 && left.Served > 0:
			return left.Unreported, nil
		case ended != nil && !ready:
			return nil, fmt.Errorf("waiting for version %s of %s to be served: the reports of group %q could not be read: %w", w.version, w.id, w.group, ended)
		case ended != nil:
			left.Err = ended
			return nil, left
		case ready:
			w.tell(left)
		}
	}
}

// look judges what is known, and reports whether everything was read.
func (w *waiter) look(now time.Time) (ready bool, left *NotServedError) {
	v := w.view
	v.mu.Lock()
	defer v.mu.Unlock()
	left = &NotServedError{ID: w.id, Version: w.version}
	for _, h := range v.hosts {
		if !h.live() {
			continue
		}
		r, _ := h.received(w.id)
		switch {
		case h.head() == nil:
			left.Unreported = append(left.Unreported, w.missing(h, r, now))
			continue
		case serves(r, w.version):
			left.Served++
		default:
			left.Missing = append(left.Missing, w.missing(h, r, now))
		}
		left.Of++
	}
	for _, list := range [][]MissingReplica{left.Missing, left.Unreported} {
		slices.SortFunc(list, func(a, b MissingReplica) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Member, b.Member))
		})
	}
	return v.membersReadLocked(), left
}

// missing says why a host does not serve the version.
func (w *waiter) missing(h *host, r event.Received, now time.Time) MissingReplica {
	s := MissingReplica{Member: h.ID, Name: h.Name, Version: r.Version, State: h.state(r, w.version, now)}
	has := "has none of it"
	if r.Generation > 0 {
		has = "has version " + r.Version.String()
	}
	switch s.State {
	case StateNever:
		s.Why = fmt.Sprintf("joined on %s, and its replica never reported", h.Joined.UTC().Format(time.DateTime))
		if h.refused != "" {
			s.Why = "its reports are not believed: " + h.refused
		}
	case StateSilent:
		s.Why = fmt.Sprintf("silent since %s; it %s", h.head().seen.UTC().Format(time.DateTime), strings.Replace(has, "has", "had", 1))
	case StateRefused:
		s.Why = fmt.Sprintf("%s, and refused a newer one: %s", has, r.Error)
	case StateReceived:
		s.Why = "received it, and does not serve it yet"
	default:
		s.Why = has
		if h.head().Error != "" {
			s.Why += ", and does not reach the bus: " + h.head().Error
		}
	}
	return s
}

func (w *waiter) tell(left *NotServedError) {
	if w.progress == nil {
		return
	}
	names := make([]string, 0, len(left.Missing))
	for _, r := range left.Missing {
		names = append(names, r.Name)
	}
	if now := fmt.Sprint(left.Served, left.Of, names); now != w.told {
		w.told = now
		w.progress(left.Served, left.Of, names)
	}
}
