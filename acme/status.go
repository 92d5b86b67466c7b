// SPDX-License-Identifier: Apache-2.0

package acme

import "time"

// A Status is how a Server stands.
type Status struct {
	// NotBefore and NotAfter are those of the certificate that is served; zero if
	// there is none.
	NotBefore, NotAfter time.Time
	// Due is when the next attempt to obtain one is; it is over, or zero, while it is
	// under way.
	Due time.Time
	// WindowStart and WindowEnd are when the CA wants the certificate to be renewed;
	// zero if it did not say. Explanation is the address of a page for people that
	// says why; "" is none.
	WindowStart, WindowEnd time.Time
	Explanation            string
	// Order is the address of the order that is under way; "" if there is none.
	Order string
	// Failures counts those in a row since the last success, and Failure is what the
	// last one, at FailedAt, failed by; "" if it did not.
	Failures uint64
	Failure  string
	FailedAt time.Time
	// Elsewhere says that another process renews, and this one serves what that obtains.
	Elsewhere bool
}

// Status returns how the Server stands.
func (s *Server) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Due: s.dueLocked(), Elsewhere: !s.leads}
	if s.pair != nil {
		st.NotBefore, st.NotAfter = s.pair.leaf.NotBefore, s.pair.leaf.NotAfter
	}
	if w := s.state.Window; w != nil {
		st.WindowStart, st.WindowEnd, st.Explanation = w.Start, w.End, w.Explanation
	}
	if o := s.state.Order; o != nil {
		st.Order = o.URL
	}
	if f := s.state.Failure; f != nil {
		st.Failures, st.Failure, st.FailedAt = f.Count, f.Text, f.At
	}
	return st
}
