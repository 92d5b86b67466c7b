// SPDX-License-Identifier: Apache-2.0

package issuertest

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// Key makes a key.
func Key(t testing.TB, kt issuer.KeyType) crypto.Signer {
	t.Helper()
	key, err := kt.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Request makes a request from a template, as a client might that is not ours, with a key
// of its own.
func Request(t testing.TB, template x509.CertificateRequest) *x509.CertificateRequest {
	t.Helper()
	return RequestWith(t, template, Key(t, issuer.ECDSAP256))
}

// RequestWith is Request with a key.
func RequestWith(t testing.TB, template x509.CertificateRequest, key crypto.Signer) *x509.CertificateRequest {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// Named makes a request for DNS names, with a key of its own.
func Named(t testing.TB, names ...string) *x509.CertificateRequest {
	t.Helper()
	return Request(t, x509.CertificateRequest{DNSNames: names})
}

// Issue has a request signed, and checks the answer as [issuer.Check] does.
func Issue(t testing.TB, ca issuer.Issuer, csr *x509.CertificateRequest, lifetime time.Duration) (leaf *x509.Certificate, chain [][]byte) {
	t.Helper()
	chain, err := ca.Issue(t.Context(), csr, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err = issuer.Check(chain, csr, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return leaf, chain
}
