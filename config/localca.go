// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net/url"
	"unicode/utf8"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/policy"
)

// LocalCA is an issuer of type "local", the built-in CA.
//
// Name, Key, RootLifetime, IntermediateLifetime, Permitted and Excluded say how
// the CA is made when it is first used. Name, Key and the two lists cannot be
// changed afterwards, the lifetimes have no effect any more: a new CA is a new
// issuer.
type LocalCA struct {
	Name                 string         `yaml:"name,omitempty"`                  // starts the CA's common names, at most 38 characters; empty: Keyturn
	Key                  issuer.KeyType `yaml:"key,omitempty"`                   // of the CA's own keys; empty: ECDSA P-256
	Lifetime             Duration       `yaml:"lifetime,omitempty"`              // of a certificate that asks for none; 0: 30 days
	MaxLifetime          Duration       `yaml:"max_lifetime,omitempty"`          // longer wishes are cut; 0: 90 days
	RootLifetime         Duration       `yaml:"root_lifetime,omitempty"`         // 0: 10 years
	IntermediateLifetime Duration       `yaml:"intermediate_lifetime,omitempty"` // 0: 5 years
	Backdate             Duration       `yaml:"backdate,omitempty"`              // how long before now a certificate is valid; 0: a minute
	Permitted            policy.Names   `yaml:"permitted,omitempty"`             // name constraints in the CA's certificates
	Excluded             policy.Names   `yaml:"excluded,omitempty"`              // as Permitted
	Policy               CAPolicy       `yaml:"policy,omitempty"`
	CRLURL               string         `yaml:"crl_url,omitempty"`      // where clients find the list of what is revoked; empty: nowhere
	CRLLifetime          Duration       `yaml:"crl_lifetime,omitempty"` // how long such a list counts; 0: a week
}

// A CAPolicy is what the built-in CA may sign. What is empty allows all.
type CAPolicy struct {
	policy.Names `yaml:",inline"`
	// Groups are those whose certificates may be signed. What is signed by hand
	// belongs to none, and is not bound by it.
	Groups []string `yaml:"groups,omitempty"`
	// Usages are what a certificate may be for: "server", "client".
	Usages []string `yaml:"usages,omitempty"`
}

// maxCAName is localca's limit.
const maxCAName = 38

func (m *mapping) localCA() *LocalCA {
	m.only("type", "name", "key", "lifetime", "max_lifetime", "root_lifetime", "intermediate_lifetime", "backdate",
		"permitted", "excluded", "policy", "crl_url", "crl_lifetime")
	c := new(LocalCA)
	m.str("name", &c.Name)
	parse(m, "key", &c.Key, issuer.ParseKeyType)
	parse(m, "lifetime", &c.Lifetime, ParseDuration)
	parse(m, "max_lifetime", &c.MaxLifetime, ParseDuration)
	parse(m, "root_lifetime", &c.RootLifetime, ParseDuration)
	parse(m, "intermediate_lifetime", &c.IntermediateLifetime, ParseDuration)
	parse(m, "backdate", &c.Backdate, ParseDuration)
	parse(m, "crl_lifetime", &c.CRLLifetime, ParseDuration)
	parse(m, "crl_url", &c.CRLURL, crlURL)
	if n := utf8.RuneCountInString(c.Name); n > maxCAName {
		m.wrong("name", "it has %d characters; at most %d fit into a common name with what follows them", n, maxCAName)
	}
	m.notAbove("lifetime", c.Lifetime, "max_lifetime", c.MaxLifetime)
	m.notAbove("intermediate_lifetime", c.IntermediateLifetime, "root_lifetime", c.RootLifetime)
	m.constraints(c)
	m.caPolicy(&c.Policy)
	return c
}

func (m *mapping) notAbove(key string, d Duration, limit string, most Duration) {
	if d > 0 && most > 0 && d > most {
		m.wrong(key, "%s is above %s, which is %s", d, limit, most)
	}
}

// constraints reads the name constraints. Each side is checked by itself, so that
// the error has its line, and both are for their number.
func (m *mapping) constraints(c *LocalCA) {
	m.names("permitted", &c.Permitted, func(n policy.Names) error {
		_, err := policy.NewConstraints(n, policy.Names{})
		return err
	})
	m.names("excluded", &c.Excluded, func(n policy.Names) error {
		_, err := policy.NewConstraints(c.Permitted, n)
		return err
	})
}

// names reads patterns of names by their kind.
func (m *mapping) names(key string, into *policy.Names, check func(policy.Names) error) {
	if m.values[key] == nil {
		return
	}
	one := m.read(m.of(key), m.values[key])
	one.only("dns", "ip", "uri")
	if one.patterns(into) {
		if err := check(*into); err != nil {
			m.wrong(key, "%v", err)
		}
	}
}

// patterns reads the three lists, and reports whether all were right.
func (m *mapping) patterns(into *policy.Names) bool {
	text := func(s string) (string, error) { return s, nil }
	var ok [3]bool
	into.DNS, ok[0] = texts(m, "dns", text)
	into.IP, ok[1] = texts(m, "ip", text)
	into.URI, ok[2] = texts(m, "uri", text)
	return ok[0] && ok[1] && ok[2]
}

func (m *mapping) caPolicy(p *CAPolicy) {
	if m.values["policy"] == nil {
		return
	}
	one := m.read(m.of("policy"), m.values["policy"])
	one.only("dns", "ip", "uri", "groups", "usages")
	p.Groups, _ = texts(&one, "groups", func(s string) (string, error) { return s, name(s) })
	p.Usages, _ = texts(&one, "usages", func(s string) (string, error) {
		_, err := policy.ParseUsage(s)
		return s, err
	})
	if one.patterns(&p.Names) {
		if _, err := policy.NewRules(p.Names, nil); err != nil {
			m.wrong("policy", "%v", err)
		}
	}
}

func crlURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return "", fmt.Errorf("%.80q is not an address such as http://HOST/ca.crl", s)
	}
	return s, nil
}
