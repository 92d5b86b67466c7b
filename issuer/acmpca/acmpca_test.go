// SPDX-License-Identifier: Apache-2.0

package acmpca_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/acmpcatest"
	"github.com/keyturn/keyturn/internal/motoserver"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acmpca"
	"github.com/keyturn/keyturn/issuer/issuertest"
)

func TestMain(m *testing.M) {
	for _, v := range os.Environ() { // of whoever works with AWS
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "AWS_") {
			_ = os.Unsetenv(name) // it was there
		}
	}
	goleak.VerifyTestMain(m)
}

// environment gives the test credentials, and nothing else that AWS's tools look at.
func environment(t testing.TB) {
	t.Helper()
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": acmpcatest.AccessKey, "AWS_SECRET_ACCESS_KEY": acmpcatest.SecretKey,
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1", // which is not the CA's
	} {
		t.Setenv(name, value)
	}
}

// newIssuer returns an issuer at the stand-in, which ends with the test.
func newIssuer(t testing.TB, s *acmpcatest.Server, c acmpca.Config) *acmpca.Issuer {
	t.Helper()
	if c.ARN == "" {
		c.ARN = s.ARN
	}
	if c.Endpoint == "" {
		c.Endpoint = s.URL
	}
	return open(t, c)
}

func open(t testing.TB, c acmpca.Config) *acmpca.Issuer {
	t.Helper()
	ca, err := acmpca.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return ca
}

// keyTypes are those of requests that AWS documents.
var keyTypes = []issuer.KeyType{issuer.ECDSAP256, issuer.ECDSAP384, issuer.RSA2048, issuer.RSA4096}

// TestStandIn runs the suite against CAs with keys of each family.
func TestStandIn(t *testing.T) {
	for title, o := range map[string]acmpcatest.Options{
		"ECDSA P-256": {},
		"ECDSA P-384": {KeyAlgorithm: "EC_secp384r1", SigningAlgorithm: "SHA384WITHECDSA"},
		"RSA":         {KeyAlgorithm: "RSA_2048", SigningAlgorithm: "SHA512WITHRSA"},
		"short-lived": {KeyAlgorithm: "EC_prime256v1", SigningAlgorithm: "SHA256WITHECDSA", ShortLived: true},
	} {
		t.Run(title, func(t *testing.T) {
			environment(t)
			s := acmpcatest.Start(t, o)
			ca := newIssuer(t, s, acmpca.Config{})
			c := issuertest.Config{Issuer: ca, Root: s.Root, KeyTypes: keyTypes, SerialBits: 120}
			if o.KeyAlgorithm != "" {
				c.KeyTypes = keyTypes[:1]
			}
			if o.ShortLived {
				c.MaxLifetime = 7 * 24 * time.Hour
			}
			issuertest.Run(t, func(*testing.T) issuertest.Config { return c })
		})
	}
}

// TestMoto runs the suite against an emulator of other people's, which knows nothing
// of this package.
func TestMoto(t *testing.T) {
	environment(t)
	s := motoserver.Start(t)
	arn, root := s.PrivateCA(t)
	ca := open(t, acmpca.Config{ARN: arn, Endpoint: s.URL})
	issuertest.Run(t, func(*testing.T) issuertest.Config {
		return issuertest.Config{Issuer: ca, Root: root, OwnLifetime: true, SerialBits: 120}
	})
	// Without a subject, RFC 5280 wants the names critical, which Moto does not make them.
	leaf, chain := issuertest.Issue(t, ca, issuertest.Request(t, x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "www.example.com"}, DNSNames: []string{"www.example.com"},
	}), 0)
	issuertest.VerifyWithOpenSSL(t, root, chain, "www.example.com")
	if err := ca.Revoke(t.Context(), leaf, nil, issuer.Superseded); err != nil {
		t.Error(err)
	}
}

// TestOpenSSLVerifies has the other widespread implementation of RFC 5280 look at a
// chain of the stand-in's.
func TestOpenSSLVerifies(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	_, chain := issuertest.Issue(t, newIssuer(t, s, acmpca.Config{}), issuertest.Named(t, "www.example.com"), 0)
	issuertest.VerifyWithOpenSSL(t, s.Root, chain, "www.example.com")
}

// TestNames asks for the kinds of names that the suite does not have.
func TestNames(t *testing.T) {
	environment(t)
	ca := newIssuer(t, acmpcatest.Start(t, acmpcatest.Options{}), acmpca.Config{})
	uri := []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/web"}}
	for title, template := range map[string]x509.CertificateRequest{
		"URI alone":   {URIs: uri},
		"mail":        {EmailAddresses: []string{"web@example.com"}, IPAddresses: []net.IP{net.IPv6loopback}},
		"common name": {Subject: pkix.Name{CommonName: "www.example.com"}, DNSNames: []string{"www.example.com"}, URIs: uri},
	} {
		t.Run(title, func(t *testing.T) { issuertest.Issue(t, ca, issuertest.Request(t, template), 0) })
	}
}

// TestLifetime asks for lifetimes by configuration, and for none.
func TestLifetime(t *testing.T) {
	environment(t)
	general, short := acmpcatest.Start(t, acmpcatest.Options{}), acmpcatest.Start(t, acmpcatest.Options{
		KeyAlgorithm: "EC_prime256v1", SigningAlgorithm: "SHA256WITHECDSA", ShortLived: true,
	})
	for _, test := range []struct {
		title  string
		server *acmpcatest.Server
		config time.Duration
		want   time.Duration
	}{
		{"none", general, 0, acmpca.DefaultLifetime},
		{"days", general, 48 * time.Hour, 48 * time.Hour},
		{"hours", general, 5 * time.Hour, 5 * time.Hour},
		{"short-lived", short, 0, 7 * 24 * time.Hour},
		{"cut", short, 90 * 24 * time.Hour, 7 * 24 * time.Hour},
	} {
		t.Run(test.title, func(t *testing.T) {
			leaf, _ := issuertest.Issue(t, newIssuer(t, test.server, acmpca.Config{Lifetime: test.config}), issuertest.Named(t, "www.example.com"), 0)
			if off := (time.Until(leaf.NotAfter) - test.want).Abs(); off > time.Minute {
				t.Errorf("it lasts %s, want %s", time.Until(leaf.NotAfter), test.want)
			}
		})
	}
}

// TestTemplate has a template of another use, which Check notices.
func TestTemplate(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	for _, template := range []string{"EndEntityClientAuthCertificate/V1", "arn:aws:acm-pca:::template/EndEntityClientAuthCertificate/V1"} {
		csr := issuertest.Named(t, "www.example.com")
		chain, err := newIssuer(t, s, acmpca.Config{Template: template}).Issue(t.Context(), csr, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := issuer.Check(chain, csr, time.Now()); err == nil {
			t.Errorf("%s: a client's certificate was taken for a server's", template)
		}
		if _, err := issuer.CheckFor(chain, csr, time.Now(), x509.ExtKeyUsageClientAuth); err != nil {
			t.Error(err)
		}
	}
}

// TestIdempotency has one request made again and again, at once and one after the
// other, by issuers that know nothing of each other.
func TestIdempotency(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	csr := issuertest.Named(t, "www.example.com")
	var all sync.WaitGroup
	for range 8 {
		ca := newIssuer(t, s, acmpca.Config{})
		all.Go(func() {
			for range 4 {
				if _, err := ca.Issue(t.Context(), csr, 24*time.Hour); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if n := s.Issued(); n != 1 {
		t.Errorf("%d certificates were made of one request", n)
	}
	ca := newIssuer(t, s, acmpca.Config{})
	issuertest.Issue(t, ca, csr, 48*time.Hour)                                    // another lifetime
	issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 24*time.Hour) // another key
	if n := s.Issued(); n != 3 {
		t.Errorf("%d certificates were made of three requests", n)
	}
	if n := s.Calls("DescribeCertificateAuthority"); n != 9 {
		t.Errorf("nine issuers asked for the CA %d times", n)
	}
}

// TestRevoke takes certificates back.
func TestRevoke(t *testing.T) {
	environment(t)
	s := acmpcatest.Start(t, acmpcatest.Options{})
	ca := newIssuer(t, s, acmpca.Config{})
	for _, name := range issuer.ReasonNames() {
		reason, err := issuer.ParseReason(name)
		if err != nil {
			t.Fatal(err)
		}
		leaf, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
		for range 2 { // what is revoked already is no error
			if err := ca.Revoke(t.Context(), leaf, nil, reason); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := s.Revoked(leaf), strings.ToUpper(strings.ReplaceAll(name, "-", "_")); got != want {
			t.Errorf("it is revoked for %q, want %q", got, want)
		}
	}
}
