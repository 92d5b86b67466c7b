// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"time"

	"github.com/keyturn/keyturn/internal/schedule"
)

// due is when the next attempt is.
func (s *Server) due() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dueLocked()
}

func (s *Server) dueLocked() time.Time {
	switch f := s.state.Failure; {
	case f != nil && f.For.equal(s.want) && !f.At.After(time.Now()): // else by a clock that was ahead
		return f.Next
	case s.pair == nil || !s.state.serves(s.want):
		return time.Time{}
	}
	rule, asked := s.ruleLocked()
	suggested, ok := s.suggestedLocked()
	if !ok || asked && rule.Before(suggested) {
		return rule
	}
	return suggested
}

// rulesLocked is what the certificate, which is there, is judged by.
func (s *Server) rulesLocked() schedule.Certificate {
	c := schedule.Certificate{From: s.pair.leaf.NotBefore, End: s.pair.leaf.NotAfter, Seed: s.state.Leaf + s.seed}
	if s.state.Issued.After(c.From) {
		c.From = s.state.Issued
	}
	return c
}

// ruleLocked is when the certificate is due whatever the CA says, and whether RenewBefore
// made it so.
func (s *Server) ruleLocked() (at time.Time, asked bool) {
	c := s.rulesLocked()
	if before := s.config.RenewBefore; before > 0 && before < c.Life() {
		return c.Due(before), true
	}
	return c.Due(schedule.Before(c.Life())), false
}

// suggestedLocked is when it is due by what the CA says, if it does.
func (s *Server) suggestedLocked() (at time.Time, ok bool) {
	w := s.state.Window
	if w == nil {
		return time.Time{}, false
	}
	c := s.rulesLocked()
	if !s.state.Recalled {
		c.Least = schedule.RecallAfter
	}
	return c.Within(w.Start, w.End), true
}

// recalled reports whether the CA wants the certificate replaced before it would be due.
func (s *Server) recalled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pair == nil {
		return false
	}
	suggested, ok := s.suggestedLocked()
	rule, _ := s.ruleLocked()
	return ok && suggested.Before(rule)
}
