// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

func TestCheckRequest(t *testing.T) {
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		t.Fatal(err)
	}
	of := func(template x509.CertificateRequest) *x509.CertificateRequest {
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
	called := func(cn string) x509.CertificateRequest {
		return x509.CertificateRequest{
			Subject: pkix.Name{CommonName: cn}, DNSNames: []string{"www.example.com"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
			EmailAddresses: []string{"web@example.com"}, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/web"}},
		}
	}
	for _, cn := range []string{"", "WWW.example.com", "10.0.0.1", "web@example.com", "spiffe://example.com/web"} {
		if err := issuer.CheckRequest(of(called(cn)), 0); err != nil {
			t.Errorf("common name %q: %v", cn, err)
		}
	}
	good := of(called(""))
	raw := bytes.Clone(good.Raw)
	raw[len(raw)-1] ^= 1 // in the signature
	forged, err := x509.ParseCertificateRequest(raw)
	if err != nil {
		t.Fatal(err)
	}
	for want, test := range map[string]struct {
		csr      *x509.CertificateRequest
		lifetime time.Duration
	}{
		"there is no":              {nil, 0},
		"-1h0m0s is negative":      {good, -time.Hour},
		"not signed by its key":    {forged, 0},
		"has no names":             {of(x509.CertificateRequest{Subject: pkix.Name{CommonName: "www.example.com"}}), 0},
		`the common name "a\nb"`:   {of(called("a\nb")), 0},
		`common name "10.0.0.2"`:   {of(called("10.0.0.2")), 0},
		`common name "\n\x00\x00\`: {of(called("\n\x00\x00\x01")), 0}, // the bytes of 10.0.0.1
	} {
		err := issuer.CheckRequest(test.csr, test.lifetime)
		if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v; want %q in it", err, want)
		}
	}
}
