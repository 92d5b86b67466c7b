// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// An Issuer is the configuration of one CA: its type, and the settings of that
// type. Exactly the settings that Type names are not nil.
type Issuer struct {
	Type  string
	Local *LocalCA // "local"
	ACME  *ACME    // "acme"
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
