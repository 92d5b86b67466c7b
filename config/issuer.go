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
	Type   string
	Local  *LocalCA // "local"
	ACME   *ACME    // "acme"
	Vault  *Vault   // "vault"
	CFSSL  *CFSSL   // "cfssl"
	AWSPCA *AWSPCA  // "awspca"
}

// An issuerType is how the settings of one type are read and written.
type issuerType struct {
	// read reads them; the key "type" itself has been read.
	read func(*mapping, *Issuer)
	// write returns them with their type, to be encoded; nil if there are none.
	write func(Issuer) any
}

var issuerTypes = map[string]issuerType{
	"local":  {func(m *mapping, i *Issuer) { i.Local = m.localCA() }, func(i Issuer) any { return typed(i.Type, i.Local) }},
	"acme":   {func(m *mapping, i *Issuer) { i.ACME = m.acme() }, func(i Issuer) any { return typed(i.Type, i.ACME) }},
	"vault":  {func(m *mapping, i *Issuer) { i.Vault = m.vault() }, func(i Issuer) any { return typed(i.Type, i.Vault) }},
	"cfssl":  {func(m *mapping, i *Issuer) { i.CFSSL = m.cfssl() }, func(i Issuer) any { return typed(i.Type, i.CFSSL) }},
	"awspca": {func(m *mapping, i *Issuer) { i.AWSPCA = m.awspca() }, func(i Issuer) any { return typed(i.Type, i.AWSPCA) }},
}

// typed is an issuer's type and its settings as one mapping; nil without settings.
func typed[T any](name string, settings *T) any {
	if settings == nil {
		return nil
	}
	return struct {
		Type     string `yaml:"type"`
		Settings T      `yaml:",inline"`
	}{name, *settings}
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
	kind, ok := issuerTypes[i.Type]
	switch _, given := m.values["type"]; {
	case ok:
		kind.read(m, &i)
	case !given:
		m.add(m.line, m.path, "the issuer has no type; known are %s", known)
	case i.Type != "":
		m.wrong("type", "%.40q is not a type of issuer; known are %s", i.Type, known)
	}
	return i
}

// MarshalYAML writes the type and its settings as one mapping.
func (i Issuer) MarshalYAML() (any, error) {
	if kind, ok := issuerTypes[i.Type]; ok {
		if settings := kind.write(i); settings != nil {
			return settings, nil
		}
	}
	return nil, fmt.Errorf("an issuer of type %q has no settings", i.Type)
}
