// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/schedule"
	"github.com/keyturn/keyturn/issuer"
)

// Bounds of how long a failure is the answer to handshakes.
const (
	minBlock = time.Second
	maxBlock = time.Minute
	maxHint  = time.Hour // if the issuer says for how long
)

// A flight is what is under way for an entry, one at a time: an issuance, a renewal, or
// a removal. It belongs to nobody who waits for it.
type flight struct {
	entry            *entry
	renewal, removal bool
	cancel           context.CancelFunc

	done chan struct{} // closed when held and err are set
	held *held
	err  error

	landed chan struct{} // closed when nothing of it goes on any more
}

func newFlight(e *entry) *flight {
	return &flight{entry: e, cancel: func() {}, done: make(chan struct{}), landed: make(chan struct{})}
}

// obtain returns the certificate for a name in its normal form, and waits for it to be
// issued if there is none. allowed says that Allow was asked.
func (s *Source) obtain(ctx context.Context, name string, allowed bool) (*held, error) {
	if h := s.atHand(s.table.find(name), time.Now()); h != nil {
		return h, nil
	}
	for {
		f, h, err := s.join(ctx, name, allowed)
		switch {
		case h != nil || err != nil:
			return h, err
		case f == nil:
			if err := s.permit(ctx, name); err != nil {
				return nil, err
			}
			allowed = true
			continue
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the certificate for %s to be issued: %w", name, ctx.Err())
		}
		if !f.removal {
			f.entry.touch(time.Now())
			return f.held, f.err
		}
		allowed = false
	}
}

// atHand returns what an entry serves without waiting, or nil. It takes no lock, unless
// a renewal is overdue.
func (s *Source) atHand(e *entry, now time.Time) *held {
	if e == nil {
		return nil
	}
	h := e.serve(now)
	if h != nil && e.overdue(now) {
		s.renew(e)
	}
	return h
}

// permit asks Allow, and says no to the client where that does.
func (s *Source) permit(ctx context.Context, name string) error {
	err := s.allow(ctx, name)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("asking whether a certificate for %s is allowed: %w", name, err)
	}
	if err != nil {
		return s.refused(name, err)
	}
	return nil
}

// join returns the certificate for a name, or what is under way for it, or why there
// is none. If it is none of these, a flight is launched if the name is allowed, or all
// are nil.
func (s *Source) join(ctx context.Context, name string, allowed bool) (*flight, *held, error) {
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	e := t.find(name)
	if e != nil {
		if h := e.serve(now); h != nil {
			return nil, h, nil
		}
		if e.flight != nil {
			return e.flight, nil, nil
		}
		if now.Before(e.blocked) {
			return nil, nil, fmt.Errorf("%w (tried again after %s)", e.err, e.blocked.UTC().Format(time.RFC3339))
		}
	}
	if t.closed {
		return nil, nil, fmt.Errorf("no certificate for %s: %w", name, ErrClosed)
	}
	if !allowed && !(e != nil && e.pinned) {
		return nil, nil, nil
	}
	if e == nil {
		var err error
		if e, err = t.addLocked(name, now); err != nil {
			return nil, nil, fmt.Errorf("no certificate for %s: %w", name, err)
		}
	}
	e.touch(now)
	return s.launchLocked(ctx, e, false), nil, nil
}

// launchLocked begins to obtain a certificate. Values of ctx go along, its end does not.
func (s *Source) launchLocked(ctx context.Context, e *entry, renewal bool) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := newFlight(e)
	f.renewal, f.cancel = renewal, cancel
	e.flight = f
	e.next.Store(time.Now().Add(s.plan.timeout).UnixNano()) // so that handshakes do not come for it
	s.table.flights.Go(func() {
		defer cancel()
		s.fly(ctx, f)
	})
	return f
}

func (s *Source) fly(ctx context.Context, f *flight) {
	limited, cancel := context.WithTimeout(ctx, s.plan.timeout)
	defer cancel()
	h, issued, err := s.fetch(limited, f)
	s.settle(f, h, err)
	if issued {
		s.keep(ctx, f.entry.name, h)
	}
	s.land(f)
}

// settle makes the certificate the one that is served, or notes the failure.
func (s *Source) settle(f *flight, h *held, err error) {
	defer close(f.done)
	if err == nil {
		f.held = h
		s.install(f.entry, h)
		return
	}
	if !s.fail(f, err) {
		return
	}
	e, old := f.entry, f.entry.live.Load()
	if !old.valid(time.Now()) {
		s.complain("a certificate could not be issued", e.name, err)
		return
	}
	s.plan.log.Error("a certificate could not be renewed; the one before is served on",
		"name", e.name, "until", old.until, "next", time.Unix(0, e.next.Load()), "error", err)
}

func (s *Source) install(e *entry, h *held) {
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	e.failures, e.err, e.blocked = 0, nil, time.Time{}
	e.next.Store(h.due.UnixNano())
	e.live.Store(h)
}

// fail notes why there is no certificate, and when it is tried again. It reports false
// if that is because the Source was closed.
func (s *Source) fail(f *flight, err error) bool {
	t, e := &s.table, f.entry
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		f.err = fmt.Errorf("no certificate for %s: %w", e.name, ErrClosed)
		return false
	}
	now := time.Now()
	f.err = fmt.Errorf("no certificate for %s: %w", e.name, err)
	e.failures++
	e.err = f.err
	e.blocked = now.Add(block(e.failures, err, now))
	next := e.blocked
	if old := e.live.Load(); old.valid(now) {
		next = now.Add(old.life().Retry(e.failures, now))
		if after, ok := issuer.RetryAfter(err); ok && after.After(next) {
			next = earliest(after, now.Add(schedule.MaxRetry))
		}
	}
	e.next.Store(next.UnixNano())
	return true
}

// block is for how long a failure is the answer to handshakes that cannot do without.
func block(failures uint64, err error, now time.Time) time.Duration {
	if after, ok := issuer.RetryAfter(err); ok {
		return max(minBlock, min(after.Sub(now), maxHint))
	}
	if errors.Is(err, issuer.ErrRefused) || failures > 6 {
		return maxBlock
	}
	return minBlock << (failures - 1)
}
