// SPDX-License-Identifier: Apache-2.0

// Package issuertest holds every [issuer.Issuer] to the same contract.
//
// A test of an issuer is one call:
//
//	func TestIssuer(t *testing.T) {
//		issuertest.Run(t, func(t *testing.T) issuertest.Config {
//			ca := start(t)
//			return issuertest.Config{Issuer: ca, Root: ca.Root()}
//		})
//	}
//
// The CA behind the issuer should be a real one, started by the test. All names
// that are asked for lie under one domain, so that it can be allowed to sign
// just these. What a CA cannot do is said in the [Config]; nothing is skipped
// because it failed.
package issuertest

import (
	"crypto"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// A Config is an issuer to test and what is known about it. All but Issuer and
// Root may be left zero.
type Config struct {
	Issuer issuer.Issuer

	// Root is what chains have to end at.
	Root *x509.Certificate

	// Domain is the domain of all DNS names. Empty means "keyturn.test".
	Domain string

	// KeyTypes are those that the CA signs. Nil means all.
	KeyTypes []issuer.KeyType

	// NoIP and NoWildcard say that the CA does not sign such names.
	NoIP, NoWildcard bool

	// MaxLifetime is what a longer wish is cut to. 0 means that the suite does
	// not ask for too much.
	MaxLifetime time.Duration

	// OwnLifetime says that the CA ignores the requested lifetime.
	OwnLifetime bool

	// LifetimeSlack is by how much a lifetime may differ from the wish. 0 means a
	// minute.
	LifetimeSlack time.Duration

	// MaxBackdate is how long before now a certificate may begin. 0 means two
	// hours: public CAs take one.
	MaxBackdate time.Duration

	// SerialBits is how many bits of a serial number have to be random. 0 means
	// 64: CA/Browser Forum Baseline Requirements section 7.1.
	SerialBits int
}

func (c Config) complete() Config {
	if c.Domain == "" {
		c.Domain = "keyturn.test"
	}
	if c.KeyTypes == nil {
		c.KeyTypes = issuer.KeyTypes()
	}
	if c.LifetimeSlack == 0 {
		c.LifetimeSlack = time.Minute
	}
	if c.MaxBackdate == 0 {
		c.MaxBackdate = 2 * time.Hour
	}
	if c.SerialBits == 0 {
		c.SerialBits = 64
	}
	return c
}

// Run runs the suite. start is called once for each test in it; it ends what it
// started with t.Cleanup.
func Run(t *testing.T, start func(t *testing.T) Config) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Config)
	}{
		{"Names", testNames},
		{"KeyTypes", testKeyTypes},
		{"Lifetime", testLifetime},
		{"Validity", testValidity},
		{"Serials", testSerials},
		{"Leaf", testLeaf},
		{"OnlyWhatWasAskedFor", testOnlyWhatWasAskedFor},
		{"Concurrent", testConcurrent},
		{"CancelledContext", testCancelledContext},
		{"Refused", testRefused},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, start(t).complete()) })
	}
}

// key returns a new key of the first type that the CA signs.
func (c Config) key(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := c.KeyTypes[0].Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// request makes a request for names, in which "@" stands for the domain.
func (c Config) request(t testing.TB, key crypto.Signer, names ...string) *x509.CertificateRequest {
	t.Helper()
	csr, err := issuer.NewRequest(key, c.full(names))
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// full puts the domain in the place of a "@".
func (c Config) full(names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, strings.ReplaceAll(n, "@", c.Domain))
	}
	return all
}

// issue has a request signed and checked, up to the root.
func (c Config) issue(t testing.TB, csr *x509.CertificateRequest, lifetime time.Duration) *x509.Certificate {
	t.Helper()
	chain, err := c.Issuer.Issue(t.Context(), csr, lifetime)
	if err != nil {
		t.Fatalf("issuing for %v %v: %v", csr.DNSNames, csr.IPAddresses, err)
	}
	return c.check(t, chain, csr)
}

func (c Config) check(t testing.TB, chain [][]byte, csr *x509.CertificateRequest) *x509.Certificate {
	t.Helper()
	leaf, err := issuer.Check(chain, csr, time.Now())
	if err != nil {
		t.Fatalf("the answer for %v %v: %v", csr.DNSNames, csr.IPAddresses, err)
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	opts.Roots.AddCert(c.Root)
	for _, der := range chain[1:] {
		parent, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		opts.Intermediates.AddCert(parent)
	}
	if _, err := leaf.Verify(opts); err != nil {
		t.Fatalf("the chain for %v %v does not reach the root: %v", csr.DNSNames, csr.IPAddresses, err)
	}
	return leaf
}
