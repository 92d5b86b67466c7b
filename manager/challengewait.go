// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/plural"
)

// answerTimeout is how long a live replica may take to answer a challenge: it follows the
// bus, and reports at most once a second.
const answerTimeout = 30 * time.Second

// firstReport is how long is waited for a host that has just joined and that nothing
// was heard of yet, where there is no other that could answer.
const firstReport = 5 * time.Second

var errSlowBoard = fmt.Errorf("the bus has not given them for %v", answerTimeout)

// UnansweredError says that a CA that looked would not find the answer to a challenge
// everywhere.
type UnansweredError struct {
	// Name is what control is to be proven of, by the replicas of Group.
	Name, Group string
	// Answered of Of live replicas answer; the others are Missing. With Of 0 there is
	// none.
	Answered, Of int
	Missing      []MissingReplica
	// Err is why nothing waits any longer: the context's error, nil if they had all the
	// time that they get.
	Err error
}

// Error names everyone, one a line.
func (e *UnansweredError) Error() string {
	if e.Of == 0 {
		return fmt.Sprintf("no replica of group %q is live, so nobody would answer a CA that asks for %s: start one, or give the name's zone another solver in the shared configuration", e.Group, e.Name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the challenge for %s is answered by %d of %s of group %q, and a CA may ask any", e.Name, e.Answered, plural.Of(e.Of, "live replica"), e.Group)
	for _, r := range e.Missing {
		fmt.Fprintf(&b, "\n  %s (%s): %s", r.Name, r.Member, r.Why)
	}
	fmt.Fprintf(&b, "\nfix or revoke what is named; one that is gone counts for nothing %v after its last report", SilentAfter)
	return b.String()
}

// Unwrap returns the context's error.
func (e *UnansweredError) Unwrap() error { return e.Err }

// An answerWatch is a view of a group's members and of what they report.
type answerWatch struct {
	g     *answers
	view  *view
	began time.Time
	end   func()
}

// watch returns Run's view if that is complete, else one that is filled until the last
// of its users ends it.
func (g *answers) watch(ctx context.Context) *answerWatch {
	w := &answerWatch{g: g, began: time.Now(), end: func() {}}
	if live := g.m.live.Load(); live != nil && live.ready() {
		w.view = live
		return w
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users++; g.users == 1 {
		g.seen = newView(g.m)
		g.stop = g.fill(context.WithoutCancel(ctx), g.seen)
	}
	w.view, w.end = g.seen, g.leave
	return w
}

// fill fills a view until stop is called.
func (g *answers) fill(ctx context.Context, v *view) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, s := range v.members(ctx, g.group) {
		wg.Go(func() { g.m.follow(ctx, s) })
	}
	return func() {
		cancel()
		wg.Wait()
	}
}

// leave is the end of one use of seen.
func (g *answers) leave() {
	g.mu.Lock()
	if g.users--; g.users > 0 {
		g.mu.Unlock()
		return
	}
	stop := g.stop
	g.seen, g.stop = nil, nil
	g.mu.Unlock()
	stop()
}

// wait returns when every live replica answers by the entry at a place, or a later one.
func (w *answerWatch) wait(ctx context.Context, name string, at bus.Position) error {
	timer, first := time.NewTimer(answerTimeout), time.NewTimer(firstReport)
	defer timer.Stop()
	defer first.Stop()
	alone := false // nobody who has just joined is waited for any more
	for ended := false; ; {
		changed := w.view.next()
		ready, left := w.look(at, time.Now())
		left.Name = name
		switch {
		case !ready || len(left.Missing) > 0:
		case left.Of > 0:
			return nil
		case ended || alone || !w.expects(time.Now()):
			return left
		}
		switch {
		case ended && !ready:
			return &busError{fmt.Errorf("waiting until group %q answers the challenge for %s: its reports could not be read: %w", w.g.group, name, cmp.Or(ctx.Err(), errSlowBoard))}
		case ended:
			left.Err = ctx.Err()
			return left
		}
		select {
		case <-changed:
		case <-ctx.Done():
			ended = true
		case <-first.C:
			alone = true
		case <-timer.C:
			ended = true
		}
	}
}

// expects reports whether a host of the group has just joined and may report soon.
func (w *answerWatch) expects(now time.Time) bool {
	v := w.view
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, h := range v.hosts {
		if h.Group == w.g.group && h.live() && h.head() == nil && now.Sub(h.Joined) < time.Minute {
			return true
		}
	}
	return false
}

// look judges what is known, and reports whether everything was read.
func (w *answerWatch) look(at bus.Position, now time.Time) (ready bool, left *UnansweredError) {
	v := w.view
	v.mu.Lock()
	defer v.mu.Unlock()
	left = &UnansweredError{Group: w.g.group}
	for _, h := range v.hosts {
		if h.Group != w.g.group || !h.live() || h.head() == nil || h.silent(now) {
			continue
		}
		left.Of++
		if h.answers(at) {
			left.Answered++
		} else {
			left.Missing = append(left.Missing, w.missing(h))
		}
	}
	slices.SortFunc(left.Missing, func(a, b MissingReplica) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Member, b.Member))
	})
	return v.membersReadLocked(), left
}

// answers reports whether a host said that it answers what stands at a place, or what
// came after it.
func (h *host) answers(at bus.Position) bool {
	p, err := bus.ParsePosition(h.head().Challenges)
	return err == nil && p.Log == at.Log && p.Seq >= at.Seq
}

// missing says why a host does not answer.
func (w *answerWatch) missing(h *host) MissingReplica {
	s := MissingReplica{Member: h.ID, Name: h.Name, State: StateBehind}
	switch head := h.head(); {
	case head.Error != "":
		s.Why = "does not reach the bus: " + head.Error
	case head.seen.Before(w.began):
		s.Why = fmt.Sprintf("was heard of at %s, and not since it was asked", head.seen.UTC().Format(time.DateTime))
	case head.Challenges == "":
		s.Why = "has never answered a challenge: its program, or its credentials for the bus, are older than challenges on the bus; update it, or join it anew"
	default:
		s.Why = "has not answered yet what it was asked"
	}
	return s
}
