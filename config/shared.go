// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Shared is the configuration that all managers share. [ParseShared] makes one
// and [Shared.Encode] writes one; it is not decoded by other means.
type Shared struct {
	// DefaultIssuer names the issuer of certificates that name none. After
	// ParseShared it is never empty.
	DefaultIssuer string `yaml:"default_issuer"`

	// Issuers are the CAs by name. A name has 1 to 63 of the characters a-z,
	// 0-9 and "-". There is at least one.
	Issuers map[string]Issuer `yaml:"issuers"`

	// Solvers are ways to answer ACME challenges, by name, of the form of an
	// issuer's. BusSolver is always there.
	Solvers map[string]Solver `yaml:"solvers,omitempty"`

	// Zones say which solvers answer for the names in a zone, itself included: the
	// longest zone that fits and has one for the challenge's type counts. "." is all
	// names. BusSolver answers what no zone has a solver for.
	Zones map[string][]string `yaml:"zones,omitempty"`

	// Resolvers are the name servers that managers ask, HOST:PORT; none are those of
	// the system.
	Resolvers []string `yaml:"resolvers,omitempty"`

	// Defaults apply to certificates that do not say otherwise.
	Defaults Defaults `yaml:"defaults,omitempty"`
}

// ParseShared reads a shared configuration. The error joins an *Error for each
// thing that is wrong. An empty configuration is wrong: without an issuer
// nothing can be renewed.
func ParseShared(text []byte) (*Shared, error) {
	top, err := document(text)
	if err != nil {
		return nil, err
	}
	var p problems
	s := p.shared(top)
	if err := p.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// Encode returns the YAML that ParseShared reads back as s. Its error says what
// ParseShared would refuse.
func (s *Shared) Encode() ([]byte, error) {
	text, err := yaml.Dump(s)
	if err != nil {
		return nil, fmt.Errorf("writing the shared configuration: %w", err)
	}
	if _, err := ParseShared(text); err != nil {
		return nil, fmt.Errorf("writing the shared configuration: %w", err)
	}
	return text, nil
}

func (p *problems) shared(top *yaml.Node) *Shared {
	m := p.read("", top)
	m.only("default_issuer", "issuers", "solvers", "zones", "resolvers", "defaults")
	s := &Shared{Issuers: make(map[string]Issuer)}
	p.issuers(p.read("issuers", m.values["issuers"]), s.Issuers)
	solvers := p.read("solvers", m.values["solvers"])
	s.Solvers = solvers.solvers()
	zones := p.read("zones", m.values["zones"])
	s.Zones = zones.zones(s.Solvers)
	s.Resolvers, _ = texts(&m, "resolvers", resolver)
	d := p.read("defaults", m.values["defaults"])
	d.defaults(&s.Defaults, s.Issuers)
	m.str("default_issuer", &s.DefaultIssuer)
	m.defaultIssuer(s)
	return s
}

// defaultIssuer checks that the default issuer exists and is the first of the
// defaults, or picks that one, or the only one.
func (m *mapping) defaultIssuer(s *Shared) {
	names := slices.Sorted(maps.Keys(s.Issuers))
	_, given := m.values["default_issuer"]
	first := ""
	if len(s.Defaults.Issuers) > 0 {
		first = s.Defaults.Issuers[0]
	}
	if !given {
		s.DefaultIssuer = first
	}
	_, exists := s.Issuers[s.DefaultIssuer]
	switch {
	case exists && first != "" && first != s.DefaultIssuer:
		m.wrong("default_issuer", "it is not %s, the first of defaults.issuers: leave one of the two out", first)
	case exists || len(names) == 0: // none: reported already
	case given:
		m.wrong("default_issuer", "there is no issuer of this name; the issuers are %s", strings.Join(names, ", "))
	case len(names) == 1:
		s.DefaultIssuer = names[0]
	default:
		m.wrong("default_issuer", "there is more than one issuer: name one of %s", strings.Join(names, ", "))
	}
}
