// SPDX-License-Identifier: Apache-2.0

package tlsalpn01

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/internal/port"
)

var errNoChallenge = errors.New("tls-alpn-01: there is no challenge for this name")

// A Server answers challenges on a port of its own, which it holds only while there are
// any. CAs look at port 443, so this is for hosts where nothing else listens there.
//
// Addr must not be changed after first use, and a Server not be copied. Its zero value
// is ready to use.
type Server struct {
	// Addr is HOST:PORT; an empty host is all addresses. "" is ":443".
	Addr string

	port    port.Port
	mu      sync.Mutex         // not held while port is worked on
	answers map[string]*answer // guarded by mu; by server name
}

// An answer is shown for a server name; uses counts the challenges that wait for it.
type answer struct {
	authorization string
	cert          *tls.Certificate
	uses          int
}

var _ solver.Solver = (*Server)(nil)

// Solve implements solver.Solver. A name has one answer at a time: another order's
// challenge for it is an error meanwhile.
func (s *Server) Solve(ctx context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	if c.Type != solver.TLSALPN01 {
		return nil, fmt.Errorf("tls-alpn-01: a challenge of type %q is answered by another solver", c.Type)
	}
	if err := s.add(c); err != nil {
		return nil, fmt.Errorf("tls-alpn-01: %w", err)
	}
	if err := s.port.Hold(ctx, cmp.Or(s.Addr, ":443"), s.accept, http.NotFoundHandler()); err != nil {
		s.remove(c)
		return nil, fmt.Errorf("tls-alpn-01: %w", err)
	}
	release := sync.OnceValue(func() error {
		s.remove(c)
		return s.port.Release()
	})
	return func(context.Context) error { return release() }, nil
}

func (s *Server) add(c solver.Challenge) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := ServerName(c.Name)
	a := s.answers[name]
	if a != nil && a.authorization != c.KeyAuthorization {
		return fmt.Errorf("another order's challenge for %s is being answered, and a name has one answer at a time: try again later", c.Name)
	}
	if a == nil {
		cert, err := Certificate(c.Name, c.KeyAuthorization)
		if err != nil {
			return err
		}
		if s.answers == nil {
			s.answers = make(map[string]*answer)
		}
		a = &answer{authorization: c.KeyAuthorization, cert: cert}
		s.answers[name] = a
	}
	a.uses++
	return nil
}

func (s *Server) remove(c solver.Challenge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := ServerName(c.Name)
	if a := s.answers[name]; a.uses > 1 {
		a.uses--
	} else {
		delete(s.answers, name)
	}
}

// accept makes connections fail or negotiate Protocol, for which an HTTP server serves
// nothing: it closes them, as RFC 8737 section 3 has it.
func (s *Server) accept(inner net.Listener) net.Listener {
	return tls.NewListener(inner, &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{Protocol},
		GetCertificate: s.certificate, SessionTicketsDisabled: true,
	})
}

func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !slices.Equal(hello.SupportedProtos, []string{Protocol}) {
		return nil, errNoChallenge
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.answers[ServerName(hello.ServerName)]; a != nil {
		return a.cert, nil
	}
	return nil, errNoChallenge
}
