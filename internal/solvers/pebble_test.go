// SPDX-License-Identifier: Apache-2.0

package solvers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/nameserver"
	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

// TestWildcardFromRealCA has a real CA look at a real name server, which gets the
// answers by dynamic updates: of a name and its wildcard, whose records have one
// name, and of one that is delegated. That stays in the zone: this name server
// follows no alias to another.
func TestWildcardFromRealCA(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{
		Zones:   []string{"example.test"},
		Records: []string{"_acme-challenge.www.example.test. 60 CNAME www.answers.example.test."},
	})
	pebble := acmetest.Start(t, acmetest.Options{Resolver: s.Addr()})
	settings := map[string]string{"server": s.Addr(), "key_name": s.KeyName, "key_secret": s.KeySecret}
	solve, types, err := New("own", config.Solver{Type: "rfc2136", Settings: settings}, []string{s.Addr()})
	if err != nil || len(types) != 1 || types[0] != solver.DNS01 {
		t.Fatal(types, err)
	}
	account, err := acme.NewAccount()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := acme.New(acme.Config{
		Name: "pebble", Directory: pebble.Directory(), Roots: pebble.WebPool(), TermsAgreed: true,
		Challenge: solver.DNS01, Account: account, Solve: solve.Solve, Resolvers: []string{s.Addr()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Close()
	names := []string{"example.test", "*.example.test", "www.example.test"}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"example.test", "any.example.test", "www.example.test"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
	r := resolve.New([]string{s.Addr()})
	for _, name := range []string{"_acme-challenge.example.test", "www.answers.example.test"} {
		if got, err := r.TXT(t.Context(), name); err != nil || len(got) != 0 {
			t.Errorf("left behind at %s: %q, %v", name, got, err)
		}
	}
}
