// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

const (
	// never is when something is done that is not.
	never = 100 * 365 * 24 * time.Hour
	// askAgain is after how long a CA that did not say when to renew is asked again:
	// one that never does may learn it, one that failed gets well.
	askAgain = 6 * time.Hour
)

// askAt is when to ask the CA for renewal information.
func (s *Server) askAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pair == nil || s.state.Made.Directory != s.config.Directory || !time.Now().Before(s.pair.leaf.NotAfter) {
		return time.Now().Add(never)
	}
	return s.state.Ask
}

// askWindow asks when the CA wants the certificate renewed. What is known stays known
// where it does not answer, and the rule stands in where nothing is.
func (s *Server) askWindow(ctx context.Context) {
	s.mu.Lock()
	leaf, st := s.pair.leaf, s.state
	s.mu.Unlock()
	way, err := s.way(ctx)
	var info issuer.RenewalInfo
	if err == nil {
		info, err = way.RenewalInfo(ctx, leaf)
	}
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		st.Window = &window{Start: info.Start, End: info.End, Explanation: info.Explanation}
		st.Ask = time.Now().Add(info.Poll)
	default:
		if !errors.Is(err, issuer.ErrNoRenewalInfo) {
			s.log.Warn("the CA does not say when to renew", "error", err)
		} else {
			st.Window = nil
		}
		st.Ask = time.Now().Add(askAgain)
		if after, ok := issuer.RetryAfter(err); ok && after.After(st.Ask) {
			st.Ask = after
		}
	}
	if err := s.setState(ctx, st); err != nil {
		s.log.Error("when to renew cannot be kept", "error", err)
	}
}
