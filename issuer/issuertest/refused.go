// SPDX-License-Identifier: Apache-2.0

package issuertest

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

func testCancelledContext(t *testing.T, c Config) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	chain, err := c.Issuer.Issue(ctx, c.request(t, c.key(t), "www.@"), 0)
	if !errors.Is(err, context.Canceled) || errors.Is(err, issuer.ErrRefused) || chain != nil {
		t.Fatalf("with a cancelled context: %d certificates, error %v; want %v alone", len(chain), err, context.Canceled)
	}
	c.issue(t, c.request(t, c.key(t), "www.@"), 0) // and nothing is broken by it
}

func testRefused(t *testing.T, c Config) {
	good := c.request(t, c.key(t), "www.@")
	for _, test := range []struct {
		title    string
		csr      *x509.CertificateRequest
		lifetime time.Duration
	}{
		{"bad signature", badSignature(t, good), 0},
		{"no names", noNames(t, c), 0},
		{"negative lifetime", good, -time.Hour},
	} {
		t.Run(test.title, func(t *testing.T) {
			chain, err := c.Issuer.Issue(t.Context(), test.csr, test.lifetime)
			if !errors.Is(err, issuer.ErrRefused) || chain != nil {
				t.Fatalf("%d certificates, error %v; want %v", len(chain), err, issuer.ErrRefused)
			}
		})
	}
	c.issue(t, good, 0)
}

// badSignature changes the last bit, which lies in the signature.
func badSignature(t *testing.T, csr *x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	der := bytes.Clone(csr.Raw)
	der[len(der)-1] ^= 1
	bad, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	if bad.CheckSignature() == nil {
		t.Fatal("the signature is still good")
	}
	return bad
}

func noNames(t *testing.T, c Config) *x509.CertificateRequest {
	t.Helper()
	template := x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"Keyturn"}}}
	return RequestWith(t, template, c.key(t))
}
