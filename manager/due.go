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
)

// Why RenewDue did not try to renew what is due.
var (
	// ErrClaimed means that another manager is making the generation.
	ErrClaimed = errors.New("another manager is at it")
	// ErrLeft means that the pass ended first.
	ErrLeft = errors.New("left for the next pass")
)

// deadClaim is how old a claim is, by the clocks of two machines, when RenewDue
// takes it for dead: a pass is too short to see it lapse. A living manager
// renews its claim every thirty seconds; if its clock, or ours, is wrong by more
// than this, an order is made twice, and still one generation is published.
const deadClaim = time.Hour

// DueOptions bound one pass of RenewDue.
type DueOptions struct {
	// Max is how many certificates are attempted at most; 0 is no limit.
	Max int
	// Only, if not nil, are the ids that are looked at, and nothing else is done.
	// Somebody waits for them, so they are not spread over time.
	Only []string
	// For is for how long new attempts are begun; 0 is no limit. One that was begun
	// is finished: an issuer has five minutes.
	For time.Duration
	// Progress, if not nil, is told each result as it comes, one at a time.
	Progress func(DueResult)
}

// A DueResult is what became of one certificate that was due.
type DueResult struct {
	ID    string
	Names []string
	Group string
	// Issuer is who was asked, or would have been.
	Issuer string
	// Generation is the one that was made, or, with an error, the newest before.
	Generation uint64
	// Err is nil if a generation was made; ErrClaimed, ErrLeft, a *HeldError, or why
	// the attempt failed, which is noted in the state.
	Err error
}

// RenewDue is one pass of what Run does all the time, for cron, systemd timers
// and functions: it asks CAs when to renew; renews what is due, what is in danger
// first, then what is compromised or recalled, and of equals what ends soonest, but
// what failed before in turns with what did not;
// makes up for what others left undone; answers a log that went back; and signs a
// beacon for each group. Eight attempts run at once with each issuer. Nothing is
// tried twice: what failed is noted, and due again when its back-off ends, and
// what a budget holds up is left to the next pass. What is paused is left out.
//
// Every in Config must be the interval of the timer: replicas expect beacons by it,
// and a pass makes as many orders as an even pace would make between two passes.
// The results come in no particular order; the error is what else went wrong, and
// then there may be results nevertheless.
func (m *Manager) RenewDue(ctx context.Context, o DueOptions) ([]DueResult, error) {
	s := newScheduler(ctx, m)
	if err := s.readAll(); err != nil {
		return nil, fmt.Errorf("reading what is due: %w", err)
	}
	p := &pass{s: s, o: o, held: make(map[string]*HeldError)}
	if o.For > 0 {
		p.until = time.Now().Add(o.For)
	}
	if o.Only != nil {
		p.run(slices.DeleteFunc(s.dueNow(), func(c *Managed) bool { return !slices.Contains(o.Only, c.ID) }))
		return p.results, nil
	}
	problems := []error{s.judgeAll(), s.copyAll(), m.tendHosts(ctx)}
	problems = append(problems, s.readAll(), s.askAll(p.until)) // what was marked by that is due now
	p.run(s.dueNow())
	problems = append(problems, s.signAll(), s.view.problems())
	m.count(func(s *Stats) { s.LastPass = time.Now() })
	return p.results, errors.Join(problems...)
}

// readAll reads what has come since it was called last: the states, the groups'
// entries, and what members report.
func (s *scheduler) readAll() error {
	for _, from := range s.sources() {
		at, err := s.m.read(s.ctx, from, s.read[from.scope])
		if err != nil {
			return fmt.Errorf("%s: %w", from.scope, err)
		}
		s.read[from.scope] = at
	}
	return nil
}

// copyAll makes up for generations and removals that were committed and not
// copied for their group.
func (s *scheduler) copyAll() error {
	var failed []error
	for _, c := range s.known {
		if !s.uncopiedLocked(c) || s.ctx.Err() != nil { // nobody else works on s
			continue
		}
		if err := s.m.copy(s.ctx, c); err != nil {
			failed = append(failed, fmt.Errorf("publishing generation %d of %s: %w", c.Generation, c.ID, err))
		}
	}
	return errors.Join(failed...)
}

// dueNow returns what is due, in the order in which it is to be renewed: what
// has the greater need first, and of that what ends soonest. What is paused, or
// would ask an issuer that is, is left out.
func (s *scheduler) dueNow() []*Managed {
	var due []*Managed
	now := time.Now()
	needs := make(map[string]need)
	for _, c := range s.known {
		issuer := c.asks(s.after())
		if c.Removed || c.Pause != nil || s.paused[issuer] || c.dueAt().After(now) {
			continue
		}
		due = append(due, c)
		needs[c.ID] = c.needs(issuer, true, now)
	}
	slices.SortFunc(due, func(a, b *Managed) int {
		return cmp.Or(cmp.Compare(needs[b.ID], needs[a.ID]), a.urgency().Compare(b.urgency()), strings.Compare(a.ID, b.ID))
	})
	return due
}

// end is when the newest generation ends; the zero Time before the first.
func (c *Managed) end() time.Time {
	if c.Certificate == nil {
		return time.Time{}
	}
	return c.Certificate.NotAfter
}

// A pass is one RenewDue.
type pass struct {
	s     *scheduler
	o     DueOptions
	until time.Time // zero: without end

	mu      sync.Mutex
	results []DueResult           // guarded by mu
	held    map[string]*HeldError // guarded by mu; by issuer, what its account waits for
}

// run renews what is due, perIssuer at once with each issuer.
func (p *pass) run(due []*Managed) {
	queues := make(map[string]chan *Managed)
	n := 0
	for _, c := range alternately(due) {
		switch {
		case p.s.m.claimed(c) > 0 && time.Since(c.Claim.At) < deadClaim:
			p.done(c, "", ErrClaimed)
		case p.o.Max > 0 && n >= p.o.Max:
			p.done(c, "", ErrLeft)
		default:
			n++
			issuer := c.asks(p.s.after())
			if queues[issuer] == nil {
				queues[issuer] = make(chan *Managed, len(due))
			}
			queues[issuer] <- c
		}
	}
	var work sync.WaitGroup
	for issuer, queue := range queues {
		close(queue)
		for range min(perIssuer, len(queue)) {
			work.Go(func() {
				for c := range queue {
					p.renew(c, issuer)
				}
			})
		}
	}
	work.Wait()
}

// alternately has each one that failed before followed by one that did not, as long as
// there are both: however many fail, and end soonest, a pass that ends early gets to
// others, too.
func alternately(due []*Managed) []*Managed {
	var kinds [2][]*Managed
	for _, c := range due {
		i := 0
		if (c.Failure != nil) != (due[0].Failure != nil) {
			i = 1
		}
		kinds[i] = append(kinds[i], c)
	}
	list := make([]*Managed, 0, len(due))
	for i := range max(len(kinds[0]), len(kinds[1])) {
		for _, kind := range kinds {
			if i < len(kind) {
				list = append(list, kind[i])
			}
		}
	}
	return list
}

func (p *pass) renew(c *Managed, issuer string) {
	ctx := p.s.ctx
	if ctx.Err() != nil || !p.until.IsZero() && !time.Now().Before(p.until) {
		p.done(c, "", ErrLeft)
		return
	}
	if held := p.heldFor(c, issuer); held != nil {
		p.done(c, issuer, held)
		return
	}
	made, err := p.s.m.renewBy(ctx, c, p.scheduled(), c.reason())
	var held *HeldError
	switch {
	case conflict(err):
		err = ErrClaimed
	case errors.As(err, &held):
		err = held
		if held.Account {
			p.mu.Lock()
			p.held[held.Issuer] = held
			p.mu.Unlock()
		}
	case err == nil:
		c = made
	}
	p.done(c, issuer, err)
}

// heldFor returns what c waits for because another certificate does, that needed
// it as much.
func (p *pass) heldFor(c *Managed, issuer string) *HeldError {
	now := time.Now()
	n := c.needs(issuer, p.scheduled(), now)
	p.mu.Lock()
	defer p.mu.Unlock()
	if held := p.held[issuer]; held != nil && held.holds(n) && held.Until.After(now) {
		return held
	}
	return nil
}

// scheduled reports whether nobody waits for what is renewed.
func (p *pass) scheduled() bool { return p.o.Only == nil }

func (p *pass) done(c *Managed, issuer string, err error) {
	if err == nil {
		issuer = c.issuedBy()
	}
	r := DueResult{ID: c.ID, Names: c.Spec.Names, Group: c.Spec.Group, Issuer: cmp.Or(issuer, c.Spec.Issuer), Generation: c.Generation, Err: err}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results = append(p.results, r)
	if p.o.Progress != nil {
		p.o.Progress(r)
	}
}
