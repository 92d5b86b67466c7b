// SPDX-License-Identifier: Apache-2.0

package config

import (
	"maps"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/solver"
)

// A Solver is one way to answer ACME challenges, by its type's own settings.
type Solver struct {
	// Type is one of SolverTypes.
	Type string
	// Settings are the type's own, by name.
	Settings map[string]string
	// Propagation is how long a dns-01 record may take to be seen at all of the
	// zone's name servers; 0 is two minutes.
	Propagation Duration
	// Resolvers are asked instead of those of the Shared configuration, HOST:PORT.
	Resolvers []string
}

// BusSolver is the name and the type of the solver that is always there: the
// group's replicas answer http-01 and tls-alpn-01.
const BusSolver = "bus"

func (m *mapping) solvers() map[string]Solver {
	var all map[string]Solver
	for _, name := range m.keys {
		switch {
		case name == BusSolver:
			m.wrong(name, "this is the name of the solver that is always there, by which replicas answer: choose another")
			continue
		case !nameForm.MatchString(name):
			m.wrong(name, "a solver's name has 1 to 63 of the characters a-z, 0-9 and -")
			continue
		case all == nil:
			all = make(map[string]Solver)
		}
		one := m.read(m.of(name), m.values[name])
		all[name] = one.solver()
	}
	return all
}

func (m *mapping) solver() (s Solver) {
	known := strings.Join(slices.Sorted(maps.Keys(SolverTypes)), ", ")
	m.str("type", &s.Type)
	t, ok := SolverTypes[s.Type]
	switch _, given := m.values["type"]; {
	case ok:
		m.settings(t, &s)
	case !given:
		m.add(m.line, m.path, "the solver has no type; known are %s", known)
	case s.Type != "":
		m.wrong("type", "%.40q is not a type of solver; known are %s", s.Type, known)
	}
	return s
}

// settings reads what a solver of one type can be told.
func (m *mapping) settings(t SolverType, s *Solver) {
	keys := []string{"type"}
	for _, setting := range t.Settings {
		keys = append(keys, setting.Name)
		value, given := m.scalar(setting.Name)
		switch {
		case given && value == "":
			m.wrong(setting.Name, "it is empty: give it a value or leave it out")
		case given && s.Settings == nil:
			s.Settings = map[string]string{setting.Name: value}
		case given:
			s.Settings[setting.Name] = value
		case setting.Required && m.values[setting.Name] == nil:
			m.wrong(setting.Name, "it is missing: %s", setting.Doc)
		}
	}
	if slices.Contains(t.Challenges, solver.DNS01) {
		keys = append(keys, "propagation", "resolvers")
		parse(m, "propagation", &s.Propagation, ParseDuration)
		s.Resolvers, _ = texts(m, "resolvers", resolver)
	}
	m.only(keys...)
}

// MarshalYAML writes the type and its settings as one mapping.
func (s Solver) MarshalYAML() (any, error) {
	return struct {
		Type        string            `yaml:"type"`
		Settings    map[string]string `yaml:",inline"`
		Propagation Duration          `yaml:"propagation,omitempty"`
		Resolvers   []string          `yaml:"resolvers,omitempty"`
	}{s.Type, s.Settings, s.Propagation, s.Resolvers}, nil
}

// harmlessSetting reports whether a setting of solvers is a secret with none of
// their types.
func harmlessSetting(key string) bool {
	known := false
	for _, t := range SolverTypes {
		if s, ok := t.Setting(key); ok {
			if s.Secret {
				return false
			}
			known = true
		}
	}
	return known
}
