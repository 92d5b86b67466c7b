// SPDX-License-Identifier: Apache-2.0

// Package solvers makes solvers of their settings in the shared configuration. It
// links every kind of them, so only programs import it.
package solvers

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/http01"
	"github.com/keyturn/keyturn/solver/tlsalpn01"
)

// With returns New for whoever has a logger of his own for what solvers tell.
func With(logger *slog.Logger) func(name string, c config.Solver, resolvers []string) (solver.Solver, []string, error) {
	return func(name string, c config.Solver, resolvers []string) (solver.Solver, []string, error) {
		return create(logger, name, c, resolvers)
	}
}

// New makes the solver of a name, and says which types of challenges it answers.
// Resolvers, HOST:PORT, are asked where the solver has none of its own; none are
// the system's. It asks nobody anything and listens nowhere yet. What it makes
// keeps order among the challenges that it is given: one is made for each solver,
// and kept. It logs to slog.Default.
func New(name string, c config.Solver, resolvers []string) (s solver.Solver, types []string, err error) {
	return create(slog.Default(), name, c, resolvers)
}

func create(logger *slog.Logger, name string, c config.Solver, resolvers []string) (s solver.Solver, types []string, err error) {
	t, ok := config.SolverTypes[c.Type]
	if !ok {
		return nil, nil, fmt.Errorf("the solver %s: %.40q is not a type of solver; known are %s", name, c.Type,
			strings.Join(slices.Sorted(maps.Keys(config.SolverTypes)), ", "))
	}
	if err := check(t, c.Settings); err != nil {
		return nil, nil, fmt.Errorf("the solver %s of type %s: %w", name, c.Type, err)
	}
	if s, err = build(logger, name, c, resolvers); err != nil {
		return nil, nil, fmt.Errorf("the solver %s of type %s: %w", name, c.Type, err)
	}
	return s, slices.Clone(t.Challenges), nil
}

// check says what is missing or not known: settings may come from another version.
func check(t config.SolverType, settings map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if _, ok := t.Setting(key); !ok {
			return fmt.Errorf("%.40q is no setting of it", key)
		}
	}
	for _, s := range t.Settings {
		if s.Required && settings[s.Name] == "" {
			return fmt.Errorf("the setting %s is missing: %s", s.Name, s.Doc)
		}
	}
	return nil
}

func build(logger *slog.Logger, name string, c config.Solver, resolvers []string) (solver.Solver, error) {
	get := func(key string) string { return c.Settings[key] }
	switch c.Type {
	case "http-01":
		return &http01.Server{Addr: get("listen")}, nil
	case "webroot":
		return &http01.Webroot{Dir: get("path")}, nil
	case "tls-alpn-01":
		return &tlsalpn01.Server{Addr: get("listen")}, nil
	}
	make, ok := providers[c.Type]
	if !ok {
		return nil, errors.New("nothing is known of it but its name")
	}
	p, err := make(get)
	if err != nil {
		return nil, err
	}
	if len(c.Resolvers) > 0 {
		resolvers = c.Resolvers
	}
	return dns.New(dns.Config{
		Provider:    p,
		Resolver:    resolve.New(resolvers),
		Propagation: time.Duration(c.Propagation),
		Logger:      logger.With("solver", name),
	}), nil
}
