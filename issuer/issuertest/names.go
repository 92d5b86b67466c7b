// SPDX-License-Identifier: Apache-2.0

package issuertest

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/issuer"
)

func testNames(t *testing.T, c Config) {
	var several []string
	for i := range 20 {
		several = append(several, fmt.Sprintf("n%02d.@", i))
	}
	for _, test := range []struct {
		title    string
		names    []string
		wildcard bool
		ip       bool
	}{
		{title: "one", names: []string{"www.@"}},
		{title: "deep", names: []string{"a.b.c.d.@"}},
		{title: "international", names: []string{"xn--bcher-kva.@"}},
		{title: "long label", names: []string{strings.Repeat("a", 63) + ".@"}},
		{title: "two", names: []string{"www.@", "@"}},
		{title: "twenty", names: several},
		{title: "wildcard", names: []string{"*.@", "@"}, wildcard: true},
		{title: "IPv4", names: []string{"10.1.2.3"}, ip: true},
		{title: "IPv6", names: []string{"2001:db8::1"}, ip: true},
		{title: "mixed", names: []string{"www.@", "*.sub.@", "127.0.0.1", "::1"}, wildcard: true, ip: true},
	} {
		if test.ip && c.NoIP || test.wildcard && c.NoWildcard {
			continue
		}
		t.Run(test.title, func(t *testing.T) {
			csr := c.request(t, c.key(t), test.names...)
			raw := bytes.Clone(csr.Raw)
			leaf := c.issue(t, csr, 0)
			for _, name := range c.full(test.names) {
				host := strings.Replace(name, "*", "any", 1)
				if err := leaf.VerifyHostname(host); err != nil {
					t.Error(err)
				}
			}
			if !bytes.Equal(raw, csr.Raw) {
				t.Error("the issuer changed the request")
			}
		})
	}
}

// testConcurrent has 32 requests signed at once: each gets its own names and
// key.
func testConcurrent(t *testing.T, c Config) {
	const n = 32
	var wg sync.WaitGroup
	var csrs [n]*x509.CertificateRequest
	var chains [n][][]byte
	var errs [n]error
	for i := range n {
		csrs[i] = c.request(t, c.key(t), fmt.Sprintf("host%d.@", i), fmt.Sprintf("alias%d.@", i))
	}
	for i := range n {
		wg.Go(func() { chains[i], errs[i] = c.Issuer.Issue(t.Context(), csrs[i], 0) })
	}
	wg.Wait()
	for i := range n {
		if errs[i] != nil {
			t.Fatal(errs[i])
		}
		c.check(t, chains[i], csrs[i])
	}
}

// testOnlyWhatWasAskedFor asks for more than names: a common name that is not
// among them, and to be a CA. A CA may refuse it or leave it out.
func testOnlyWhatWasAskedFor(t *testing.T, c Config) {
	basicConstraints, err := asn1.Marshal(struct{ IsCA bool }{true})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		title    string
		template x509.CertificateRequest
	}{
		{"foreign common name", x509.CertificateRequest{Subject: pkix.Name{CommonName: "other." + c.Domain}}},
		{"CA", x509.CertificateRequest{ExtraExtensions: []pkix.Extension{
			{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: basicConstraints},
		}}},
	} {
		t.Run(test.title, func(t *testing.T) {
			test.template.DNSNames = []string{"www." + c.Domain}
			csr := RequestWith(t, test.template, c.key(t))
			chain, err := c.Issuer.Issue(t.Context(), csr, 0)
			if errors.Is(err, issuer.ErrRefused) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			leaf := c.check(t, chain, csr)
			if leaf.IsCA {
				t.Error("the leaf is a CA")
			}
			if cn := leaf.Subject.CommonName; cn == "other."+c.Domain {
				t.Errorf("the leaf has the common name %s, which is not one of its names", cn)
			}
		})
	}
}
