// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// groupsScope holds the entries of all groups' certificates.
const groupsScope = "group"

const (
	// afterFailure is the shortest time until a certificate is looked at again
	// whose attempt could not even be noted, because the bus is gone.
	afterFailure = 5 * time.Second
	// grace is how long whoever made a certificate, or committed a
	// generation, has to go on with it, before another manager does.
	grace = 10 * time.Second
)

// Run renews every managed certificate when it is due, answers who asks to join,
// retires groups' former keys, makes up for what another manager left undone,
// and returns when ctx ends and its work has.
func (m *Manager) Run(ctx context.Context) {
	s := newScheduler(ctx, m)
	m.live.Store(s.view)
	defer m.live.Store(nil)
	m.running.Store(s)
	defer m.running.Store(nil)
	hosts := newHosts(m, m.keys)
	conf := source{from: m.log, scope: confScope, take: m.readings.take, ended: m.readings.end}
	for _, from := range slices.Concat(s.sources(), hosts.sources(ctx), []source{conf}) {
		s.work.Go(func() { m.follow(ctx, from) })
	}
	s.work.Go(s.watch)
	if m.board != nil {
		s.work.Go(s.keepBeacons)
	}
	s.work.Go(func() { hosts.run(ctx) })
	if m.snapshot != "" {
		s.work.Go(func() { m.keepSnapshot(ctx) })
	}
	s.loop()
	s.work.Wait()
	m.letGoAll()
}

// A scheduler is one Run, or what a pass of RenewDue knows.
type scheduler struct {
	m       *Manager
	ctx     context.Context // Run's
	work    sync.WaitGroup
	wake    chan struct{}
	view    *view
	accused chan struct{}           // wakes who answers evidence
	read    map[string]bus.Position // by scope, how far a pass has read
	// attempt makes the next generation by an issuer.
	attempt func(ctx context.Context, c *Managed, issuer, reason string) (*Managed, error)
	// ask asks the CA of the newest generation when to renew it.
	ask func(ctx context.Context, c *Managed) (*Managed, error)
	// jitter is a part of the time over which several managers spread asking about c.
	jitter func(c *Managed, spread time.Duration) time.Duration

	mu       sync.Mutex
	awaited  map[string]*awaited  // guarded by mu; by id, what the bus has to tell of
	known    map[string]*Managed  // guarded by mu; the newest state by id
	busy     map[string]bool      // guarded by mu; ids that are being worked on
	due      dueHeap              // guarded by mu
	copies   map[string]place     // guarded by mu; by id, the groups' entries
	tallies  map[string]*tally    // guarded by mu; by group
	evidence map[string]evidence  // guarded by mu; that the log went back, by who gave it
	anew     map[string]bool      // guarded by mu; ids seen since the log was replaced; nil if all are
	lanes    map[string]*lane     // guarded by mu; by issuer
	queued   map[string]string    // guarded by mu; by id, for which issuer it waits
	instead  map[string]string    // guarded by mu; by id, who is asked in place of an issuer whose budget is used up
	paused   map[string]bool      // guarded by mu; issuers
	unasked  map[string]time.Time // guarded by mu; by id, until when a CA is left alone that did not answer
	set      *settings            // guarded by mu; nil until they were read
	caught   bool                 // guarded by mu; all copies were seen
}

func newScheduler(ctx context.Context, m *Manager) *scheduler {
	s := &scheduler{
		m: m, ctx: ctx, view: newView(m), awaited: make(map[string]*awaited), known: make(map[string]*Managed), busy: make(map[string]bool),
		copies: make(map[string]place), tallies: make(map[string]*tally), evidence: make(map[string]evidence),
		read: make(map[string]bus.Position), lanes: make(map[string]*lane), queued: make(map[string]string),
		instead: make(map[string]string), paused: make(map[string]bool), unasked: make(map[string]time.Time),
		wake: make(chan struct{}, 1), accused: make(chan struct{}, 1), attempt: m.scheduled, ask: m.askWithin,
		jitter: func(_ *Managed, spread time.Duration) time.Duration { return rand.N(spread) },
	}
	s.view.proofs = s.proven
	return s
}

// sources are all that is looked at.
func (s *scheduler) sources() []source {
	return append(s.view.sources(s.ctx),
		source{from: s.m.log, scope: event.ConfigKey, take: s.takeConfig},
		source{from: s.m.log, scope: event.ControlScope, take: s.takeControl, lost: s.lostControls},
		source{from: s.m.log, scope: event.StateScope, take: s.takeState, lost: s.lostStates},
		source{from: s.m.log, scope: groupsScope, take: s.takeCopy, lost: s.lostCopies})
}

func (s *scheduler) takeState(u bus.Update) {
	if u.CaughtUp {
		s.forgetLost()
		s.view.mark(event.StateScope)
		s.poke()
		return
	}
	c, err := patiently(s.ctx, func() (*Managed, error) { return s.m.decode(s.ctx, u.Entry) })
	if err != nil {
		s.m.logger.Error("a managed certificate cannot be looked after", "key", u.Key, "error", err)
		s.view.problem(u.Key, err)
		return
	}
	s.mu.Lock()
	old := s.known[c.ID]
	s.known[c.ID] = c
	s.tellLocked(c)
	if s.anew != nil {
		s.anew[c.ID] = true
	}
	s.planLocked(c, 0)
	s.mu.Unlock()
	s.remembered(old, c)
	s.view.certificate(c)
	s.m.changed(c)
	s.poke()
}

// lostStates is called when the states are about to be read anew, because the
// log was replaced or went back.
func (s *scheduler) lostStates() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.anew = make(map[string]bool)
}

// forgetLost lets go of what a log has no more that was replaced or went back.
func (s *scheduler) forgetLost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.anew == nil {
		return
	}
	n := 0
	for id, c := range s.known {
		if s.anew[id] {
			continue
		}
		delete(s.known, id)
		s.view.forget(id)
		if n++; n <= maxProblems {
			s.m.logger.Error("the log lost a certificate altogether: nothing renews it any more", "managed_id", id, "names", c.Spec.Names, "version", c.Version.String())
		}
	}
	if n > maxProblems {
		s.m.logger.Error("the log lost more certificates altogether", "more", n-maxProblems)
	}
	s.anew = nil
}

// lostCopies is lostStates for what stands under the groups' keys.
func (s *scheduler) lostCopies() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.caught = false
	clear(s.copies)
	clear(s.tallies)
}

func (s *scheduler) takeCopy(u bus.Update) {
	version := s.m.copied(s.ctx, u.Key, u.Entry)
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.CaughtUp {
		if !s.caught {
			s.caught = true
			for _, c := range s.known { // until now, copies were not planned
				s.planLocked(c, 0)
			}
		}
		s.poke()
		return
	}
	id := path.Base(u.Key)
	if event.CheckID(id) != nil {
		return
	}
	s.copies[id] = place{version, u.Position}
	s.tallyLocked(path.Base(path.Dir(u.Key))).take(id, version, u.Position)
	if c := s.known[id]; s.caught && c != nil && s.copies[id].Less(c.Version) {
		s.planLocked(c, 0)
		s.poke()
	}
}

func (s *scheduler) poke() { notify(s.wake) }

// notify wakes whoever waits on c, now or next.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// loop starts what is due until ctx ends.
func (s *scheduler) loop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		case <-s.wake:
		}
		timer.Reset(s.start())
	}
}

// start starts what is due and returns the time until something else is.
func (s *scheduler) start() time.Duration {
	s.m.count(func(s *Stats) { s.LastPass = time.Now() })
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := time.Minute // timers sleep with the machine: look at the clock now and then
	for len(s.due) > 0 {
		next := s.due[0]
		if left := time.Until(next.at); left > 0 {
			wait = min(wait, left)
			break
		}
		heap.Pop(&s.due)
		c := s.known[next.id]
		switch {
		case c == nil || c.Position != next.position || s.busy[c.ID]: // an older plan, or done when the work ends
		case next.ask:
			s.askLocked(c)
		default:
			s.startLocked(c)
		}
	}
	return min(wait, s.feedLocked())
}

func (s *scheduler) startLocked(c *Managed) {
	if s.uncopiedLocked(c) {
		s.goLocked(c, func() (*Managed, error) { return c, s.m.copy(s.ctx, c) }, nil)
		return
	}
	if c.Removed || c.Pause != nil {
		return
	}
	if at := c.dueAt(); time.Until(at) > 0 { // the clock was set back since it was planned
		s.due.push(c.ID, c.Position, at)
		return
	}
	s.queueLocked(c)
}
