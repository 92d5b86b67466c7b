// SPDX-License-Identifier: Apache-2.0

package vault

import "time"

// shortestWait is between two attempts to keep a token alive, whatever fails.
const shortestWait = time.Second

// wait sets the timer for when the token has to be renewed, if it is one that
// cannot be had again by logging in.
func (s *session) wait() {
	if !s.auth.once() || !s.grant.renewable || s.grant.ends.IsZero() || s.grant.over() {
		return
	}
	// Two thirds of the time that is left: at nearEnd after a renewal, and again and
	// again before the end while renewing fails.
	left := time.Until(s.grant.ends)
	next := left - s.grant.ttl/3
	if next <= 0 {
		next = left / 3
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.ctx.Err() == nil {
		s.timer = time.AfterFunc(max(next, shortestWait), s.keepAlive)
	}
}

// keepAlive renews the token while nobody asks.
func (s *session) keepAlive() {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		return
	}
	s.work.Add(1)
	s.mu.Unlock()
	defer s.work.Done()
	if s.enter(s.ctx) != nil {
		return
	}
	defer s.leave()
	if err := s.renew(s.ctx); err != nil {
		s.wait() // whoever asks next gets the error, if the token has ended by then
	}
}

// close ends the timer and waits for what it does.
func (s *session) close() {
	s.mu.Lock()
	s.cancel()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.work.Wait()
}
