// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyturn/keyturn/issuer"
)

// An Issuer is the configuration of one CA: its type, and the settings of that
// type. Exactly the settings that Type names are not nil.
type Issuer struct {
	Type  string
	Local *LocalCA // "local"
	ACME  *ACME    // "acme"
}

// LocalCA is an issuer of type "local", the built-in CA.
//
// Name, Key, RootLifetime and IntermediateLifetime say how the CA is made when
// it is first used. Name and Key cannot be changed afterwards, the other two
// have no effect any more: a new CA is a new issuer.
type LocalCA struct {
	Name                 string         `yaml:"name,omitempty"`                  // starts the CA's common names, at most 38 characters; empty: Keyturn
	Key                  issuer.KeyType `yaml:"key,omitempty"`                   // of the CA's own keys; empty: ECDSA P-256
	Lifetime             Duration       `yaml:"lifetime,omitempty"`              // of a certificate that asks for none; 0: 30 days
	MaxLifetime          Duration       `yaml:"max_lifetime,omitempty"`          // longer wishes are cut; 0: 90 days
	RootLifetime         Duration       `yaml:"root_lifetime,omitempty"`         // 0: 10 years
	IntermediateLifetime Duration       `yaml:"intermediate_lifetime,omitempty"` // 0: 5 years
	Backdate             Duration       `yaml:"backdate,omitempty"`              // how long before now a certificate is valid; 0: a minute
}

// issuerTypes are the known types and how the settings of each are read. The
// key "type" itself has been read.
var issuerTypes = map[string]func(*mapping, *Issuer){
	"local": func(m *mapping, i *Issuer) { i.Local = m.localCA() },
	"acme":  func(m *mapping, i *Issuer) { i.ACME = m.acme() },
}

var nameForm = regexp.MustCompile(`^[a-z0-9-]{1,63}$`)

func (p *problems) issuers(m mapping, into map[string]Issuer) {
	if len(m.keys) == 0 {
		p.add(m.line, "issuers", "at least one issuer is needed, as in: issuers: {internal: {type: local}}")
	}
	for _, name := range m.keys {
		if !nameForm.MatchString(name) {
			m.wrong(name, "an issuer's name has 1 to 63 of the characters a-z, 0-9 and -")
			continue
		}
		one := p.read(m.of(name), m.values[name])
		into[name] = one.issuer()
	}
}

func (m *mapping) issuer() (i Issuer) {
	known := strings.Join(slices.Sorted(maps.Keys(issuerTypes)), ", ")
	m.str("type", &i.Type)
	read, ok := issuerTypes[i.Type]
	switch _, given := m.values["type"]; {
	case ok:
		read(m, &i)
	case !given:
		m.add(m.line, m.path, "the issuer has no type; known are %s", known)
	case i.Type != "":
		m.wrong("type", "%.40q is not a type of issuer; known are %s", i.Type, known)
	}
	return i
}

// maxCAName is localca's limit.
const maxCAName = 38

func (m *mapping) localCA() *LocalCA {
	m.only("type", "name", "key", "lifetime", "max_lifetime", "root_lifetime", "intermediate_lifetime", "backdate")
	c := new(LocalCA)
	m.str("name", &c.Name)
	parse(m, "key", &c.Key, issuer.ParseKeyType)
	parse(m, "lifetime", &c.Lifetime, ParseDuration)
	parse(m, "max_lifetime", &c.MaxLifetime, ParseDuration)
	parse(m, "root_lifetime", &c.RootLifetime, ParseDuration)
	parse(m, "intermediate_lifetime", &c.IntermediateLifetime, ParseDuration)
	parse(m, "backdate", &c.Backdate, ParseDuration)
	if n := utf8.RuneCountInString(c.Name); n > maxCAName {
		m.wrong("name", "it has %d characters; at most %d fit into a common name with what follows them", n, maxCAName)
	}
	m.notAbove("lifetime", c.Lifetime, "max_lifetime", c.MaxLifetime)
	m.notAbove("intermediate_lifetime", c.IntermediateLifetime, "root_lifetime", c.RootLifetime)
	return c
}

func (m *mapping) notAbove(key string, d Duration, limit string, most Duration) {
	if d > 0 && most > 0 && d > most {
		m.wrong(key, "%s is above %s, which is %s", d, limit, most)
	}
}

// MarshalYAML writes the type and its settings as one mapping.
func (i Issuer) MarshalYAML() (any, error) {
	switch {
	case i.Type == "local" && i.Local != nil:
		return struct {
			Type    string `yaml:"type"`
			LocalCA `yaml:",inline"`
		}{i.Type, *i.Local}, nil
	case i.Type == "acme" && i.ACME != nil:
		return struct {
			Type string `yaml:"type"`
			ACME `yaml:",inline"`
		}{i.Type, *i.ACME}, nil
	}
	return nil, fmt.Errorf("an issuer of type %q has no settings", i.Type)
}
