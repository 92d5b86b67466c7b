// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"time"

	"github.com/keyturn/keyturn/bus"
)

// goLocked runs work for c and plans c anew when it has ended and the bus has told of
// it: until then what is known of c is what the work itself wrote on its way.
// endedLocked, if not nil, is told of the end, and says what a failure waits for, in
// place of afterFailure.
func (s *scheduler) goLocked(c *Managed, work func() (*Managed, error), endedLocked func(error) time.Duration) {
	s.busy[c.ID] = true
	s.work.Go(func() {
		done, err := work()
		var held *HeldError
		if err != nil && !conflict(err) && !errors.As(err, &held) && s.ctx.Err() == nil {
			s.m.logger.Warn("a managed certificate needs another attempt", "managed_id", c.ID, "error", err)
		}
		s.mu.Lock()
		wait := afterFailure
		if endedLocked != nil {
			wait = endedLocked(err)
		}
		if err == nil {
			wait = 0
			s.followLocked(done)
		}
		delete(s.busy, c.ID)
		if err == nil {
			if now := s.known[c.ID]; now != nil && now.Position == c.Position {
				s.known[c.ID] = done
			}
			if s.copies[c.ID].Less(done.Version) {
				s.copies[c.ID] = place{Version: done.Version}
			}
		}
		if now := s.known[c.ID]; now != nil {
			s.planLocked(now, wait)
		}
		s.mu.Unlock()
		s.poke()
	})
}

// An awaited is a state that this manager wrote, and what is closed when it, or a
// later one, was followed.
type awaited struct {
	at   bus.Position
	told chan struct{}
}

// followLocked returns when the bus has told of a state that was written, or has not
// for afterFailure. It lets go of mu meanwhile.
func (s *scheduler) followLocked(c *Managed) {
	w := &awaited{c.Position, make(chan struct{})}
	if now := s.known[c.ID]; now == nil || w.isIn(now) {
		return
	}
	s.awaited[c.ID] = w
	s.mu.Unlock()
	s.poke() // somebody else may begin
	select {
	case <-w.told:
	case <-time.After(afterFailure):
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	delete(s.awaited, c.ID)
}

// tellLocked ends the wait for a state.
func (s *scheduler) tellLocked(c *Managed) {
	if w := s.awaited[c.ID]; w != nil && w.isIn(c) {
		delete(s.awaited, c.ID)
		close(w.told)
	}
}

// isIn reports whether a state is the one that is awaited, or came after it.
func (w *awaited) isIn(c *Managed) bool {
	return c.Position.Log == w.at.Log && c.Position.Seq >= w.at.Seq
}
