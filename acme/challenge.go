// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/tlsalpn01"
)

// solve answers a challenge.
func (s *Server) solve(ctx context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	switch {
	case s.config.Solver != nil:
		return s.config.Solver.Solve(ctx, c)
	case c.Type == solver.TLSALPN01:
		return s.tls.Solve(ctx, c)
	case c.Type == solver.HTTP01:
		return s.http.Solve(ctx, c)
	}
	return nil, fmt.Errorf("a challenge of type %q cannot be answered by this process: set Solver", c.Type)
}

// challenges answers tls-alpn-01 by a Store. A name has one challenge at a time: there is
// one order.
type challenges struct {
	store *keyturn.Store

	mu    sync.Mutex
	certs map[string]*tls.Certificate // guarded by mu; by server name; replaced, never changed
}

// Solve implements solver.Solver.
func (t *challenges) Solve(_ context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	cert, err := tlsalpn01.Certificate(c.Name, c.KeyAuthorization)
	if err != nil {
		return nil, err
	}
	name := tlsalpn01.ServerName(c.Name)
	t.change(func(certs map[string]*tls.Certificate) { certs[name] = cert })
	return func(context.Context) error {
		t.change(func(certs map[string]*tls.Certificate) {
			if certs[name] == cert {
				delete(certs, name)
			}
		})
		return nil
	}, nil
}

func (t *challenges) change(by func(map[string]*tls.Certificate)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	certs := maps.Clone(t.certs)
	if certs == nil {
		certs = make(map[string]*tls.Certificate)
	}
	by(certs)
	t.certs = certs
	t.store.SetChallenges("acme", certs)
}

// HTTPHandler returns a handler for the plain port, 80, which answers challenges of
// http-01 and leaves everything else to next. A nil next redirects to https, on port
// 443, what asks for one of the names.
func (s *Server) HTTPHandler(next http.Handler) http.Handler {
	if next == nil {
		next = http.HandlerFunc(s.redirect)
	}
	answer := s.http.Wrap(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.config.Challenge == solver.HTTP01 {
			s.serves()
		}
		answer.ServeHTTP(w, r)
	})
}

func (s *Server) redirect(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !s.lists(strings.Trim(host, "[]")) {
		http.Error(w, "this host is not served here", http.StatusNotFound)
		return
	}
	if strings.Contains(host, ":") && !strings.HasPrefix(host, "[") {
		host = "[" + host + "]" // SplitHostPort took them away
	}
	w.Header().Set("Connection", "close")
	http.Redirect(w, r, "https://"+host+r.URL.RequestURI(), http.StatusPermanentRedirect)
}

// lists reports whether a name, as a client sent it, is one of Names, or below a
// wildcard among them. Clients send none for an address.
func (s *Server) lists(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" {
		return slices.ContainsFunc(s.config.Names, isAddress)
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		name = ip.Unmap().String()
	}
	_, parent, _ := strings.Cut(name, ".")
	return slices.Contains(s.config.Names, name) || slices.Contains(s.config.Names, "*."+parent)
}

func isAddress(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
