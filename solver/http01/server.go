// SPDX-License-Identifier: Apache-2.0

package http01

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/internal/port"
)

// A Server answers challenges on a port of its own, which it holds only while there are
// any. CAs look at port 80, so this is for hosts where nothing else listens there.
//
// Addr must not be changed after first use, and a Server not be copied. Its zero value
// is ready to use.
type Server struct {
	// Addr is HOST:PORT; an empty host is all addresses. "" is ":80".
	Addr string

	handler Handler
	port    port.Port
}

var _ solver.Solver = (*Server)(nil)

// Solve implements solver.Solver.
func (s *Server) Solve(ctx context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	forget, err := s.handler.Solve(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := s.port.Hold(ctx, cmp.Or(s.Addr, ":80"), nil, &s.handler); err != nil {
		return nil, errors.Join(fmt.Errorf("http-01: %w", err), forget(ctx))
	}
	release := sync.OnceValue(s.port.Release)
	return func(ctx context.Context) error { return errors.Join(forget(ctx), release()) }, nil
}
