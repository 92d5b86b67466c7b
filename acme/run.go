// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
)

const (
	// grace is how long the first attempt waits for the process to be seen to serve:
	// what serves a config of TLSConfig is not seen before somebody connects.
	grace = time.Second
	// follow is how often a process looks what the one that renews has written.
	follow = 2 * time.Second
	// longest is the longest time without a look at the clock, which may be set and,
	// while a machine sleeps, stands still for timers.
	longest = time.Hour
)

// run obtains and renews until ctx ends.
func (s *Server) run(ctx context.Context) {
	defer close(s.ended)
	defer s.end()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-s.serving:
	case <-timer.C:
	case <-ctx.Done():
		return
	}
	for {
		timer.Reset(s.turn(ctx))
		select {
		case <-timer.C:
		case reply := <-s.asked:
			reply <- s.renew(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// end gives up what run held.
func (s *Server) end() {
	s.first.set(false, errClosed)
	_ = s.unlock() // the process's end does it as well
	if s.issuer != nil {
		s.issuer.Close()
	}
}

// turn does what is due, and returns after how long to look again.
func (s *Server) turn(ctx context.Context) time.Duration {
	leads, err := s.lead(ctx)
	if s.complain(err); !leads || err != nil {
		return follow
	}
	now := time.Now()
	switch {
	case !s.due().After(now):
		_ = s.attempt(ctx) // logged, and in the state
	case !s.askAt().After(now):
		s.askWindow(ctx)
	}
	next := s.due()
	if ask := s.askAt(); ask.Before(next) {
		next = ask
	}
	return min(max(time.Until(next), 0), longest)
}

// complain logs an error of lead, once for as long as it stays the same.
func (s *Server) complain(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != s.complaint && err != nil {
		s.log.Error("the certificate is not renewed", "error", err)
	}
	s.complaint = text
}

// lead reports whether it is this process that renews. If not, it serves what the one
// that does has written.
func (s *Server) lead(ctx context.Context) (bool, error) {
	dir, ok := s.keep.cache.(dirCache)
	if s.lock != nil || !ok && s.leading() {
		return true, nil
	}
	var err error
	if ok {
		s.lock, err = dir.lock(s.keep.name)
		if err != nil && !errors.Is(err, durable.ErrLocked) {
			return false, fmt.Errorf("looking whether another process renews: %w", err)
		}
	}
	if err := s.reload(ctx); err != nil {
		return false, err
	}
	if f := s.currentState().Failure; f != nil && f.For.equal(s.want) {
		s.first.set(false, f.error())
	}
	if !ok || s.lock == nil {
		return s.setLeads(!ok), nil
	}
	return s.setLeads(true), dir.sweep(s.keep.name)
}

func (s *Server) leading() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leads
}

func (s *Server) setLeads(leads bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leads = leads
	return leads
}

// Renew obtains a new certificate now, whatever is due and whatever has failed, and
// returns when it is served. It is for people: CAs limit how often they are asked. An
// order that is under way is gone on with.
func (s *Server) Renew(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case s.asked <- reply:
	case <-s.ended:
		return fmt.Errorf("acme: renewing: %w", errClosed)
	case <-ctx.Done():
		return fmt.Errorf("acme: renewing: %w", ctx.Err())
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return fmt.Errorf("acme: waiting for the renewal, which goes on: %w", ctx.Err())
	}
}

func (s *Server) renew(ctx context.Context) error {
	leads, err := s.lead(ctx)
	if err != nil {
		return fmt.Errorf("acme: renewing: %w", err)
	}
	if !leads {
		return errors.New("acme: renewing: another process renews the certificate in this directory, and has to be asked")
	}
	if err := s.attempt(ctx); err != nil {
		return fmt.Errorf("acme: renewing: %w", err)
	}
	return nil
}
