// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/solver"
)

// allNames is the zone that every name is in.
const allNames = "."

// A madeSolver is good while its settings are the same.
type madeSolver struct {
	config    config.Solver
	resolvers []string
	// made makes it at the first call, and returns the same at every other. It may take
	// its time: files are read, programs looked for.
	made func() (solver.Solver, error)
}

// solve makes the answer to a challenge available, by the solver that the shared
// configuration has for the name, and returns what takes it away again, as
// solver.Solver has it. The error may be an *InvalidError or an *UnansweredError.
func (m *Manager) solve(ctx context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	shared, _, err := m.shared(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for a solver for %s: %w", c.Name, err)
	}
	name := solverFor(shared, c)
	switch name {
	case "":
		return nil, noSolver(c)
	case config.BusSolver:
		done, err = m.solveOverBus(ctx, c)
	default:
		var s solver.Solver
		if s, err = m.solver(name, shared); err == nil {
			done, err = s.Solve(ctx, c)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("proving control of %s by %s, solver %q: %w", c.Name, c.Type, name, err)
	}
	return done, nil
}

// noSolver says what to configure.
func noSolver(c solver.Challenge) error {
	return &InvalidError{fmt.Sprintf("no solver answers %s for %s: add one to `solvers` of the shared configuration, and name it in `zones` under a zone that %s is in, or under %q for all names",
		c.Type, c.Name, c.Name, allNames)}
}

// solverFor returns the name of the solver for a challenge, "" if there is none: the
// first of its type in the longest zone that has one, else the replicas.
func solverFor(shared *config.Shared, c solver.Challenge) string {
	for _, zone := range zonesOf(c.Name, shared.Zones) {
		for _, name := range shared.Zones[zone] {
			if slices.Contains(answeredBy(shared, name), c.Type) {
				return name
			}
		}
	}
	if slices.Contains(busTypes, c.Type) {
		return config.BusSolver
	}
	return ""
}

// busTypes are what replicas answer.
var busTypes = []string{solver.HTTP01, solver.TLSALPN01}

func answeredBy(shared *config.Shared, name string) []string {
	if name == config.BusSolver {
		return busTypes
	}
	return config.SolverTypes[shared.Solvers[name].Type].Challenges
}

// zonesOf returns the zones that a name is in, the longest first. An IP address is in
// that of all names alone.
func zonesOf(name string, zones map[string][]string) []string {
	var in []string
	for zone := range zones {
		if zone == allNames || name == zone || strings.HasSuffix(name, "."+zone) {
			in = append(in, zone)
		}
	}
	length := func(zone string) int { return len(strings.TrimPrefix(zone, allNames)) }
	slices.SortFunc(in, func(a, b string) int { return length(b) - length(a) })
	return in
}

// solver returns the named solver of the shared configuration, the same one for as long
// as its settings are the same: it may have to do one thing after the other.
func (m *Manager) solver(name string, shared *config.Shared) (solver.Solver, error) {
	if m.solvers == nil {
		return nil, errors.New("this program has no solvers of its own: let a manager that has them renew the certificate, such as `keyturn serve`")
	}
	one := m.madeSolver(name, shared.Solvers[name], shared.Resolvers)
	s, err := one.made()
	if err != nil { // the next who asks tries again
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.madeSolvers[name] == one {
			delete(m.madeSolvers, name)
		}
		return nil, err
	}
	return s, nil
}

// madeSolver returns the one that everybody waits for who wants a solver of these
// settings.
func (m *Manager) madeSolver(name string, c config.Solver, resolvers []string) *madeSolver {
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.madeSolvers[name]
	if one == nil || !reflect.DeepEqual(one.config, c) || !slices.Equal(one.resolvers, resolvers) {
		one = &madeSolver{c, resolvers, sync.OnceValues(func() (solver.Solver, error) {
			s, _, err := m.solvers(name, c, resolvers)
			return s, err
		})}
		m.madeSolvers[name] = one
	}
	return one
}
