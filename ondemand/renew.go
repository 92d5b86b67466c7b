// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"errors"
	"time"
)

// land ends a flight, and sees to what is next.
func (s *Source) land(f *flight) {
	t, e := &s.table, f.entry
	t.mu.Lock()
	defer t.mu.Unlock()
	e.flight = nil
	close(f.landed)
	if t.closed {
		return
	}
	if h := e.live.Load(); h.valid(time.Now()) || e.pinned {
		s.armLocked(e, time.Unix(0, e.next.Load()))
		return
	}
	if errors.As(e.err, new(busyError)) {
		t.dropLocked(e) // or clients that make up names could fill the table
		return
	}
	s.armLocked(e, e.blocked.Add(maxBlock)) // dropped then
}

func (s *Source) armLocked(e *entry, at time.Time) {
	e.stopLocked()
	e.timer = time.AfterFunc(time.Until(at), func() { s.tick(e) })
}

// tick does what the time has come for.
func (s *Source) tick(e *entry) {
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || e.gone || e.flight != nil {
		return
	}
	now := time.Now()
	h := e.live.Load()
	switch {
	case h.valid(now) && !e.overdue(now):
		s.armLocked(e, time.Unix(0, e.next.Load()))
	case e.pinned, h.valid(now) && e.wanted(h):
		s.launchLocked(context.Background(), e, true)
	case h.valid(now):
		s.armLocked(e, h.until.Add(time.Second))
	default:
		t.dropLocked(e)
	}
}

// renew launches a renewal that a handshake found overdue: the timer is late, after the
// machine slept, or nobody had asked for the name in time.
func (s *Source) renew(e *entry) {
	t := &s.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.closed && !e.gone && e.flight == nil && e.overdue(time.Now()) {
		s.launchLocked(context.Background(), e, true)
	}
}
