// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

// A scene is a certificate of a CA that has a fault.
type scene struct {
	fleet  *fleet
	m      *Manager
	ca     *acmetest.CA
	front  *front
	solver *switched
	c      *Managed
}

func newScene(t *testing.T, proven bool) *scene {
	t.Helper()
	s := new(scene)
	var o acmetest.Options
	if proven {
		o.AuthzReuse = 100
	}
	s.fleet, s.m, s.ca = newACMEFleet(t, o, limited)
	s.solver = &switched{solve: s.ca.DNS.Solve}
	s.fleet.solver = s.solver
	s.c = make1(t, s.m, "a.example")
	s.front = before(s.ca)
	return s
}

// served is what replicas get.
func (s *scene) served(t *testing.T) string {
	t.Helper()
	entry, err := s.fleet.log.Get(t.Context(), event.CertificateKey(DefaultGroup, s.c.ID))
	if err != nil {
		t.Fatal(err)
	}
	return string(entry.Data)
}

// impatient has the manager wait for a state as long as it takes to look once, and
// hurried for a request three seconds: the limits themselves are tested in
// issuer/acme.
func impatient(t *testing.T, s *scene) {
	s.reopen(t, func(c *acme.Config) { c.Patience = time.Millisecond })
}

func hurried(t *testing.T, s *scene) {
	s.reopen(t, func(c *acme.Config) { c.Timeout = 3 * time.Second })
}

// reopen has the manager ask the CA with other settings.
func (s *scene) reopen(t *testing.T, change func(*acme.Config)) {
	t.Helper()
	shared, _, err := s.m.shared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	settings, err := s.m.acmeConfig("pebble", shared.Issuers["pebble"].ACME, shared)
	if err != nil {
		t.Fatal(err)
	}
	settings.Account = account(t, s.m)
	change(&settings)
	other, err := acme.New(settings)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(other.Close)
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	c := s.m.issuers["pebble"]
	c.issuer = other
	s.m.issuers["pebble"] = c
}

// takeAnotherAccount is what the page says to do where the account has ended: the
// certificate is from an issuer of another name from now on.
func takeAnotherAccount(t *testing.T, s *scene) {
	t.Helper()
	text := acmeConfig(s.ca, limited)
	again := strings.Replace(text[strings.Index(text, "  pebble:\n"):], "pebble:", "another:", 1)
	s.fleet.configure(t, s.m, text+again)
	if _, err := s.m.Change(t.Context(), s.c.ID, Change{Issuers: []string{"another"}}); err != nil {
		t.Fatal(err)
	}
}

// A switched solver is one whose way of answering can be changed.
type switched struct {
	mu    sync.Mutex
	solve func(context.Context, solver.Challenge) (func(context.Context) error, error) // guarded by mu
}

func (s *switched) set(solve func(context.Context, solver.Challenge) (func(context.Context) error, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.solve = solve
}

func (s *switched) Solve(ctx context.Context, c solver.Challenge) (func(context.Context) error, error) {
	s.mu.Lock()
	solve := s.solve
	s.mu.Unlock()
	return solve(ctx, c)
}

func answersNothing(context.Context, solver.Challenge) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, nil
}

// leavesAnswers leaves the records where they are, so that the CA finds them however
// late it looks, and the manager's patience alone is at an end.
func leavesAnswers(_ *testing.T, s *scene) {
	s.solver.set(func(ctx context.Context, c solver.Challenge) (func(context.Context) error, error) {
		_, err := s.ca.DNS.Solve(ctx, c)
		return func(context.Context) error { return nil }, err
	})
}
