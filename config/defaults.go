// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// Defaults of a new managed certificate.
type Defaults struct {
	Key         issuer.KeyType `yaml:"key,omitempty"`          // empty: ECDSA P-256
	Lifetime    Duration       `yaml:"lifetime,omitempty"`     // 0: the issuer's default
	RenewBefore RenewBefore    `yaml:"renew_before,omitempty"` // zero: the default rule
	// Issuers are the default issuer and those that stand in for it, in this order;
	// empty: DefaultIssuer alone.
	Issuers []string `yaml:"issuers,omitempty"`
	// FallbackAfter is after how many failures in a row the next issuer is taken; 0
	// is three.
	FallbackAfter int `yaml:"fallback_after,omitempty"`
}

// maxIssuers is how many issuers a certificate can have: the first, and those
// that stand in.
const maxIssuers = 8

// maxFallbackAfter bounds Defaults.FallbackAfter: with the back-off between
// attempts, these are days.
const maxFallbackAfter = 100

func (m *mapping) defaults(d *Defaults, issuers map[string]Issuer) {
	m.only("key", "lifetime", "renew_before", "issuers", "fallback_after")
	d.Issuers, _ = texts(m, "issuers", issuerName(issuers))
	if n := len(d.Issuers); n > maxIssuers {
		m.wrong("issuers", "there are %d; a certificate has at most %d issuers", n, maxIssuers)
	}
	m.number("fallback_after", &d.FallbackAfter, 1, maxFallbackAfter)
	parse(m, "key", &d.Key, issuer.ParseKeyType)
	parse(m, "lifetime", &d.Lifetime, ParseDuration)
	parse(m, "renew_before", &d.RenewBefore, ParseRenewBefore)
	if b := d.RenewBefore.before; d.Lifetime > 0 && b >= time.Duration(d.Lifetime) {
		m.wrong("renew_before", "%s is not shorter than the lifetime, %s: every certificate would be due at once", d.RenewBefore, d.Lifetime)
	}
}

// issuerName reads the name of an issuer that exists.
func issuerName(issuers map[string]Issuer) func(string) (string, error) {
	return func(s string) (string, error) {
		if _, ok := issuers[s]; !ok {
			return "", fmt.Errorf("there is no issuer %.70q; the issuers are %s", s, strings.Join(slices.Sorted(maps.Keys(issuers)), ", "))
		}
		return s, nil
	}
}
