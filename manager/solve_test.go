// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/http01"
)

const solvers = `
solvers:
  root: {type: webroot, path: /srv/www}
  front: {type: http-01, listen: "192.0.2.1:80"}
  cf: {type: cloudflare, api_token: x}
  other: {type: desec, api_token: x}
zones:
  example.com: [cf, root]
  www.example.com: [other]
  example.org: [bus]
  .: [front]
resolvers: [192.0.2.53]
`

// TestWhichSolver: the longest zone that has one for the type, then the replicas.
func TestWhichSolver(t *testing.T) {
	shared, err := config.ParseShared([]byte(sharedConfig + solvers))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ kind, name, want string }{
		{solver.DNS01, "example.com", "cf"},
		{solver.DNS01, "a.example.com", "cf"},
		{solver.DNS01, "www.example.com", "other"},
		{solver.DNS01, "a.www.example.com", "other"},
		{solver.DNS01, "wwww.example.com", "cf"},
		{solver.DNS01, "anexample.com", ""},
		{solver.DNS01, "example.org", ""},
		{solver.HTTP01, "www.example.com", "root"},
		{solver.HTTP01, "example.org", "bus"},
		{solver.HTTP01, "example.net", "front"},
		{solver.HTTP01, "192.0.2.7", "front"},
		{solver.TLSALPN01, "www.example.com", "bus"},
		{solver.TLSALPN01, "2001:db8::1", "bus"},
		{"unheard-of-01", "www.example.com", ""},
	} {
		if got := solverFor(shared, solver.Challenge{Type: c.kind, Name: c.name}); got != c.want {
			t.Errorf("%s of %s: %q, want %q", c.kind, c.name, got, c.want)
		}
	}
}

func TestSolversAreMadeOnce(t *testing.T) {
	f, m := newFleet(t)
	_, at, err := m.ConfigText(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if at, err = m.UpdateConfig(t.Context(), []byte(sharedConfig+solvers), at); err != nil {
		t.Fatal(err)
	}
	if _, err := m.solve(t.Context(), challengeFor(solver.HTTP01, "example.com", "1")); err == nil || !strings.Contains(err.Error(), "keyturn serve") {
		t.Error("without solvers: ", err)
	}
	var made []string
	var handler http01.Handler
	m, err = New(Config{
		Log: f.log, Identity: f.identity, Logger: slog.New(slog.DiscardHandler),
		Solvers: func(name string, c config.Solver, resolvers []string) (solver.Solver, []string, error) {
			made = append(made, name+" "+c.Type+" "+strings.Join(resolvers, ","))
			if name == "root" {
				return nil, nil, errors.New("no such directory")
			}
			return &handler, []string{solver.HTTP01}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		done, err := m.solve(t.Context(), challengeFor(solver.HTTP01, "a.example.net", "1"))
		if err != nil {
			t.Fatal(err)
		}
		if err := done(context.Background()); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"front http-01 192.0.2.53:53"}; !slices.Equal(made, want) {
		t.Errorf("made %q, want %q", made, want)
	}
	if _, err := m.UpdateConfig(t.Context(), []byte(sharedConfig+strings.ReplaceAll(solvers, "192.0.2.1", "192.0.2.2")), at); err != nil {
		t.Fatal(err)
	}
	if _, err := m.solve(t.Context(), challengeFor(solver.HTTP01, "a.example.net", "1")); err != nil || len(made) != 2 {
		t.Error("it has other settings: ", err, made)
	}
	for what, c := range map[string]solver.Challenge{
		`solver "root": no such directory`:           challengeFor(solver.HTTP01, "example.com", "1"),
		"no solver answers dns-01 for other.example": challengeFor(solver.DNS01, "other.example", "1"),
	} {
		if _, err := m.solve(t.Context(), c); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %q", err, what)
		}
	}
	var bad *InvalidError
	if _, err := m.solve(t.Context(), challengeFor(solver.DNS01, "other.example", "1")); !errors.As(err, &bad) {
		t.Error(err)
	}
}

// TestSolversAreMadeOutsideTheLock: while one is made, the manager and the other
// solvers go on; who wants the same one waits for it; what failed is tried again.
func TestSolversAreMadeOutsideTheLock(t *testing.T) {
	f, _ := newFleet(t)
	making, goOn := make(chan string), make(chan error)
	m, err := New(Config{
		Log: f.log, Identity: f.identity, Logger: slog.New(slog.DiscardHandler),
		Solvers: func(name string, _ config.Solver, _ []string) (solver.Solver, []string, error) {
			if name == "front" {
				making <- name
				if err := <-goOn; err != nil {
					return nil, nil, err
				}
			}
			return new(http01.Handler), nil, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := config.ParseShared([]byte(sharedConfig + solvers))
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		s   solver.Solver
		err error
	}
	results := make(chan result, 2)
	front := func() {
		s, err := m.solver("front", shared)
		results <- result{s, err}
	}
	go front()
	<-making
	m.Stats() // takes the lock
	if s, err := m.solver("root", shared); s == nil || err != nil {
		t.Error(s, err)
	}
	broken := errors.New("no such address")
	goOn <- broken
	if r := <-results; !errors.Is(r.err, broken) {
		t.Error(r)
	}
	go front()
	<-making
	go front()
	goOn <- nil
	one, two := <-results, <-results // nobody says a second time that it is made
	if one.s == nil || one.err != nil || one != two {
		t.Error(one, two)
	}
}
