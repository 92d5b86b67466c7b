// SPDX-License-Identifier: Apache-2.0

package cfssl_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/cfsslserver"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/cfssl"
	"github.com/keyturn/keyturn/issuer/issuertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Keys of profiles, in hexadecimal.
const (
	key      = "0123456789abcdef0123456789abcdef"
	wrongKey = "ffffffffffffffffffffffffffffffff"
)

// newIssuer returns an issuer at the server, which ends with the test.
func newIssuer(t testing.TB, s *cfsslserver.Server, c cfssl.Config) *cfssl.Issuer {
	t.Helper()
	if c.Address == "" {
		c.Address = s.Address
	}
	if c.Roots == nil {
		c.Roots = pool(t, s)
	}
	ca, err := cfssl.New(c)
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

// pool has what the server is known by.
func pool(t testing.TB, s *cfsslserver.Server) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(s.TLSRoots)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return roots
}

// file makes a file of the test.
func file(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestIssuer runs the suite with each way to ask, and with each server of CFSSL's.
func TestIssuer(t *testing.T) {
	for title, test := range map[string]struct {
		server   cfsslserver.Options
		config   cfssl.Config
		keyTypes []issuer.KeyType
	}{
		"sign": {},
		"authsign, profile": {
			server: cfsslserver.Options{Profiles: map[string]cfsslserver.Profile{"web": {Key: key}}},
			config: cfssl.Config{Profile: "web", AuthKey: key}, keyTypes: []issuer.KeyType{issuer.ECDSAP256},
		},
		"multirootca": {
			server: cfsslserver.Options{Label: "blue", Profiles: map[string]cfsslserver.Profile{"web": {Key: key}}},
			config: cfssl.Config{Label: "blue", Profile: "web", AuthKey: key}, keyTypes: []issuer.KeyType{issuer.ECDSAP256},
		},
	} {
		t.Run(title, func(t *testing.T) {
			s := cfsslserver.Start(t, test.server)
			ca := newIssuer(t, s, test.config)
			issuertest.Run(t, func(*testing.T) issuertest.Config {
				return issuertest.Config{Issuer: ca, Root: s.Root, KeyTypes: test.keyTypes, OwnLifetime: true, SerialBits: 120}
			})
		})
	}
}

// TestNames asks for the kinds of names that the suite does not have.
func TestNames(t *testing.T) {
	ca := newIssuer(t, cfsslserver.Start(t, cfsslserver.Options{}), cfssl.Config{})
	uri := []*url.URL{{Scheme: "spiffe", Host: "example.com", Path: "/web"}}
	for title, template := range map[string]x509.CertificateRequest{
		"URI alone":   {URIs: uri},
		"URI":         {DNSNames: []string{"www.example.com"}, URIs: uri},
		"mail":        {EmailAddresses: []string{"web@example.com"}, IPAddresses: []net.IP{net.IPv6loopback}},
		"common name": {Subject: pkix.Name{CommonName: "b.example.com"}, DNSNames: []string{"a.example.com", "b.example.com"}},
	} {
		t.Run(title, func(t *testing.T) { issuertest.Issue(t, ca, issuertest.Request(t, template), 0) })
	}
}

// TestChain has the server's CA below a root, below another intermediate, and be one
// itself.
func TestChain(t *testing.T) {
	check := func(t *testing.T, ca issuer.Issuer, s *cfsslserver.Server, length int) {
		t.Helper()
		leaf, chain := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
		opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
		opts.Roots.AddCert(s.Root)
		for _, der := range chain[1:] {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			opts.Intermediates.AddCert(cert)
		}
		if _, err := leaf.Verify(opts); err != nil {
			t.Error(err)
		}
		if len(chain) != length {
			t.Errorf("the chain has %d certificates, want %d", len(chain), length)
		}
	}
	t.Run("root", func(t *testing.T) {
		s := cfsslserver.Start(t, cfsslserver.Options{SelfSigned: true})
		check(t, newIssuer(t, s, cfssl.Config{}), s, 1)
	})
	t.Run("intermediate", func(t *testing.T) {
		s := cfsslserver.Start(t, cfsslserver.Options{})
		ca := newIssuer(t, s, cfssl.Config{})
		check(t, ca, s, 2)
		s.NewCA(t) // while the issuer knows the one before
		s.Stop(t)
		s.Restart(t)
		check(t, ca, s, 2)
	})
	t.Run("two intermediates", func(t *testing.T) {
		s := cfsslserver.Start(t, cfsslserver.Options{})
		above := s.Intermediate(t)
		s.Stop(t)
		s.Restart(t)
		check(t, newIssuer(t, s, cfssl.Config{Intermediates: []*x509.Certificate{s.Root, above}}), s, 3)
	})
}

// TestOpenSSLVerifies has the other widespread implementation of RFC 5280 look at a
// chain.
func TestOpenSSLVerifies(t *testing.T) {
	s := cfsslserver.Start(t, cfsslserver.Options{})
	_, chain := issuertest.Issue(t, newIssuer(t, s, cfssl.Config{}), issuertest.Request(t, x509.CertificateRequest{
		DNSNames: []string{"www.example.com", "*.example.org"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
	}), 0)
	if len(chain) != 2 {
		t.Errorf("the chain has %d certificates, want the leaf and the intermediate", len(chain))
	}
	issuertest.VerifyWithOpenSSL(t, s.Root, chain, "www.example.com", "*.example.org", "10.0.0.1")
}

// TestClientCertificate has a server that wants one.
func TestClientCertificate(t *testing.T) {
	s := cfsslserver.Start(t, cfsslserver.Options{ClientRoot: true})
	certFile, keyFile := s.Certificate(t)
	issuertest.Issue(t, newIssuer(t, s, cfssl.Config{CertFile: certFile, KeyFile: keyFile}), issuertest.Named(t, "www.example.com"), 0)
	checkFault(t, newIssuer(t, s, cfssl.Config{}), fault{kind: cfssl.Unreachable, says: "-mutual-tls-ca"}, s)
	named := cfsslserver.Start(t, cfsslserver.Options{ClientRoot: true, ClientName: "^nobody$"})
	certFile, keyFile = named.Certificate(t)
	other := newIssuer(t, named, cfssl.Config{CertFile: certFile, KeyFile: keyFile})
	checkFault(t, other, fault{kind: cfssl.Forbidden, refused: true, says: "Invalid CN"}, named)
	missing := newIssuer(t, s, cfssl.Config{CertFile: certFile + "x", KeyFile: keyFile})
	checkFault(t, missing, fault{kind: cfssl.Unreachable, says: "client.pemx: no such file"}, s)
}

// TestKeyFile has a key replaced in the file that it is read from.
func TestKeyFile(t *testing.T) {
	s := cfsslserver.Start(t, cfsslserver.Options{Default: cfsslserver.Profile{Key: key}})
	path := file(t, wrongKey+"\n")
	ca := newIssuer(t, s, cfssl.Config{AuthKeyFile: path})
	checkFault(t, ca, fault{kind: cfssl.InvalidToken, says: "auth_key"}, s)
	if err := os.WriteFile(path, []byte("\n"+key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ca.Issue(t.Context(), issuertest.Named(t, "www.example.com"), 0); err == nil {
		t.Error("a key that everybody may read was taken")
	}
}

// TestRevoke takes certificates back, as the server's own list shows.
func TestRevoke(t *testing.T) {
	s := cfsslserver.Start(t, cfsslserver.Options{Database: true})
	ca := newIssuer(t, s, cfssl.Config{})
	kept, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
	var revoked []*x509.Certificate
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
		revoked = append(revoked, leaf)
	}
	list := s.CRL(t)
	entries := make(map[string]bool)
	for _, e := range list.RevokedCertificateEntries {
		entries[e.SerialNumber.String()] = true
	}
	for _, leaf := range revoked {
		if !entries[leaf.SerialNumber.String()] {
			t.Errorf("%x is not in the list", leaf.SerialNumber)
		}
	}
	if entries[kept.SerialNumber.String()] || len(entries) != len(revoked) {
		t.Errorf("the list has %d entries, want %d", len(entries), len(revoked))
	}
}
