// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"fmt"
	"net/url"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/policy"
)

// What the zero values of a Config stand for.
const (
	DefaultName                 = "Keyturn"
	DefaultLifetime             = 30 * 24 * time.Hour
	DefaultMaxLifetime          = 90 * 24 * time.Hour
	DefaultRootLifetime         = 10 * 365 * 24 * time.Hour
	DefaultIntermediateLifetime = 5 * 365 * 24 * time.Hour
	DefaultBackdate             = time.Minute
	DefaultCRLLifetime          = 7 * 24 * time.Hour
)

// maxName leaves room for what follows the name in a common name, which may
// have 64 characters (RFC 5280 appendix A.1, ub-common-name).
const maxName = 38

// Config says what a CA is like. The zero value is a good one.
type Config struct {
	// Name starts the common names: "NAME Root CA 1a2b3c4d", with the start of
	// the key's identifier behind it, so that no two CAs share a name. At most
	// 38 characters. Empty means DefaultName in New, and any name in Open.
	Name string

	// KeyType is the type of the CA's own keys, whatever the keys are that it
	// certifies. Empty means ECDSA P-256 in New, and any type in Open.
	KeyType issuer.KeyType

	// Lifetime is how long from now a certificate is valid if the request does
	// not say. 0 means DefaultLifetime, or MaxLifetime where that is shorter.
	Lifetime time.Duration

	// MaxLifetime is the longest that a certificate is valid from now; a longer
	// wish is cut. 0 means DefaultMaxLifetime, or Lifetime where that is longer.
	MaxLifetime time.Duration

	// RootLifetime and IntermediateLifetime are how long the CA's own
	// certificates are valid. The intermediate never outlives the root. They
	// count in New; Open does not look at them. 0 means the default.
	RootLifetime, IntermediateLifetime time.Duration

	// Backdate is how long before now a certificate is valid already, for
	// clients whose clocks are behind. It comes on top of the lifetime. 0 means
	// DefaultBackdate, or a tenth of the lifetime where that is shorter.
	Backdate time.Duration

	// Permitted and Excluded are name constraints, which New puts into both of the
	// CA's certificates: see [policy.NewConstraints]. Both empty mean none in New,
	// and any in Open; else they must be the CA's own in Open, since they cannot
	// be changed.
	Permitted, Excluded policy.Names

	// Allowed are the names that may be signed, and Usages what certificates may be
	// for, "server" and "client": see [policy.NewRules]. They can be changed at any
	// time. Empty means all.
	Allowed policy.Names
	Usages  []string

	// CRLURL is where clients find the list of what is revoked (RFC 5280 section
	// 4.2.1.13), http:// or https://, in every certificate. Empty means that none is
	// named.
	CRLURL string

	// CRLLifetime is how long such a list counts. 0 means DefaultCRLLifetime.
	CRLLifetime time.Duration
}

// complete checks the lifetimes and fills in their defaults; Name, KeyType and
// Backdate keep their zero values.
func (c Config) complete() (Config, error) {
	for _, d := range []struct {
		what string
		is   time.Duration
	}{
		{"lifetime", c.Lifetime},
		{"longest lifetime", c.MaxLifetime},
		{"root's lifetime", c.RootLifetime},
		{"intermediate's lifetime", c.IntermediateLifetime},
		{"backdating", c.Backdate},
		{"lifetime of lists of what is revoked", c.CRLLifetime},
	} {
		if d.is < 0 {
			return c, fmt.Errorf("configuring the CA: the %s is %s; it cannot be negative", d.what, d.is)
		}
	}
	if _, err := issuer.ParseKeyType(string(c.KeyType)); err != nil {
		return c, fmt.Errorf("configuring the CA: %w", err)
	}
	if n := len([]rune(c.Name)); n > maxName {
		return c, fmt.Errorf("configuring the CA: the name %q has %d characters; at most %d fit", c.Name, n, maxName)
	}
	if c.Lifetime != 0 && c.MaxLifetime != 0 && c.Lifetime > c.MaxLifetime {
		return c, fmt.Errorf("configuring the CA: the lifetime %s is above the longest lifetime %s", c.Lifetime, c.MaxLifetime)
	}
	if u, err := url.Parse(c.CRLURL); c.CRLURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		return c, fmt.Errorf("configuring the CA: %.200q is not an address of a list of what is revoked, http://HOST/FILE", c.CRLURL)
	}
	if c.CRLLifetime == 0 {
		c.CRLLifetime = DefaultCRLLifetime
	}
	if c.MaxLifetime == 0 {
		c.MaxLifetime = max(DefaultMaxLifetime, c.Lifetime)
	}
	if c.Lifetime == 0 {
		c.Lifetime = min(DefaultLifetime, c.MaxLifetime)
	}
	if c.RootLifetime == 0 {
		c.RootLifetime = max(DefaultRootLifetime, c.IntermediateLifetime)
	}
	if c.IntermediateLifetime == 0 {
		c.IntermediateLifetime = min(DefaultIntermediateLifetime, c.RootLifetime)
	}
	if c.IntermediateLifetime > c.RootLifetime {
		return c, fmt.Errorf("configuring the CA: the intermediate's lifetime %s is above the root's %s", c.IntermediateLifetime, c.RootLifetime)
	}
	return c, nil
}

// backdate returns by how much a certificate with this lifetime is backdated.
func (c Config) backdate(lifetime time.Duration) time.Duration {
	if c.Backdate != 0 {
		return c.Backdate
	}
	return min(DefaultBackdate, lifetime/10)
}
