// SPDX-License-Identifier: Apache-2.0

package localca_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/issuer/policy"
	"github.com/keyturn/keyturn/seal"
)

// bound is a CA with name constraints.
var bound = localca.Config{
	Permitted: policy.Names{DNS: []string{"example.com"}, IP: []string{"10.0.0.0/8"}, URI: []string{"example.com"}},
	Excluded:  policy.Names{DNS: []string{"secret.example.com"}},
}

// asking makes a request for names of any kind.
func asking(t testing.TB, extra []pkix.Extension, names ...string) *x509.CertificateRequest {
	t.Helper()
	template := x509.CertificateRequest{ExtraExtensions: extra}
	for _, name := range names {
		ip := net.ParseIP(name)
		switch {
		case ip != nil:
			template.IPAddresses = append(template.IPAddresses, ip)
		case strings.Contains(name, "://"):
			u, err := url.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			template.URIs = append(template.URIs, u)
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return issuertest.RequestWith(t, template, issuertest.Key(t, issuer.ECDSAP256))
}

func refused(t *testing.T, ca *localca.CA, csr *x509.CertificateRequest, want string) {
	t.Helper()
	chain, err := ca.Issue(t.Context(), csr, 0)
	if !errors.Is(err, issuer.ErrRefused) || chain != nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%d certificates, error %v; want it refused: %s", len(chain), err, want)
	}
}

func TestNameConstraints(t *testing.T) {
	ca := newCA(t, bound)
	for _, cert := range []*x509.Certificate{ca.Root(), ca.Intermediate()} {
		if !cert.PermittedDNSDomainsCritical || !slices.Equal(cert.PermittedDNSDomains, []string{"example.com"}) || !slices.Equal(cert.ExcludedDNSDomains, []string{"secret.example.com"}) ||
			len(cert.PermittedIPRanges) != 1 || cert.PermittedIPRanges[0].String() != "10.0.0.0/8" || !slices.Equal(cert.PermittedURIDomains, []string{"example.com"}) {
			t.Errorf("%s has other name constraints", cert.Subject)
		}
	}
	chain, err := ca.Issue(t.Context(), asking(t, nil, "www.example.com", "10.1.2.3", "spiffe://example.com/web"), 0)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool()}
	opts.Roots.AddCert(ca.Root())
	opts.Intermediates.AddCert(ca.Intermediate())
	if _, err := leaf.Verify(opts); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{
		"www.example.org":         `"www.example.org" is not among the DNS names`,
		"a.secret.example.com":    `is excluded by the name constraint "secret.example.com"`,
		"192.0.2.1":               `"192.0.2.1" is not among the IP addresses`,
		"spiffe://example.org/a":  `is not among the URIs`,
		"https://10.0.0.1/":       "has no host name",
		"spiffe://a.example.com/": "is not among the URIs",
	} {
		refused(t, ca, asking(t, nil, "www.example.com", name), want)
	}
}

// TestConstraintsAreForLife: they come with the keys, whatever the configuration
// leaves out, and a configuration that says others is refused.
func TestConstraintsAreForLife(t *testing.T) {
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	reopen := func(ca *localca.CA, c localca.Config) (*localca.CA, error) {
		sealed, err := ca.Seal(key.Public(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return localca.Open([]*seal.PrivateKey{key}, nil, sealed, c)
	}
	ca := newCA(t, bound)
	for _, c := range []localca.Config{{}, bound} {
		again, err := reopen(ca, c)
		if err != nil {
			t.Fatal(err)
		}
		if again.Permitted().String() != ca.Permitted().String() || again.Excluded().String() != "secret.example.com" {
			t.Errorf("permitted %s, excluded %s", again.Permitted(), again.Excluded())
		}
		refused(t, again, asking(t, nil, "www.example.org"), "is not among the DNS names")
	}
	other := bound
	other.Excluded = policy.Names{}
	for _, ca := range []*localca.CA{ca, newCA(t, localca.Config{})} {
		if _, err := reopen(ca, other); err == nil || !strings.Contains(err.Error(), "they cannot change: configure another issuer") {
			t.Error(err)
		}
	}
	if _, err := reopen(ca, localca.Config{Usages: []string{"all"}}); err == nil || !strings.Contains(err.Error(), "is not a usage") {
		t.Error(err)
	}
}

func TestPolicy(t *testing.T) {
	ca := newCA(t, localca.Config{Allowed: policy.Names{DNS: []string{"*.example.com"}, URI: []string{"spiffe://example.com/web/*"}}})
	issuertest.Issue(t, ca, asking(t, nil, "www.example.com", "*.example.com", "spiffe://example.com/web/1"), 0)
	for name, want := range map[string]string{
		"example.com":               `the CA's policy does not allow "example.com": it allows *.example.com, spiffe://example.com/web/*`,
		"10.0.0.1":                  `does not allow "10.0.0.1"`,
		"spiffe://example.com/db/1": "does not allow",
	} {
		refused(t, ca, asking(t, nil, "www.example.com", name), want)
	}
	c := localca.Config{Permitted: bound.Permitted, Allowed: policy.Names{DNS: []string{"www.example.com", "other"}}, Usages: []string{"client"}}
	if err := c.Permits([]string{"www.example.com"}, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	for _, names := range [][]string{{"www.example.com", "a.example.com"}, {"other"}} {
		if err := c.Permits(names); !errors.Is(err, issuer.ErrRefused) {
			t.Errorf("%v: %v", names, err)
		}
	}
	if err := c.Permits(nil, x509.ExtKeyUsageServerAuth); !errors.Is(err, issuer.ErrRefused) {
		t.Error(err)
	}
}

// wish is the extension by which a request asks for usages.
func wish(t *testing.T, ids ...asn1.ObjectIdentifier) []pkix.Extension {
	value, err := asn1.Marshal(ids)
	if err != nil {
		t.Fatal(err)
	}
	return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: value}}
}

func TestUsages(t *testing.T) {
	server, client := asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 2}
	all, servers := newCA(t, localca.Config{}), newCA(t, localca.Config{Usages: []string{"server"}})
	for _, test := range []struct {
		ca   *localca.CA
		wish []pkix.Extension
		want []x509.ExtKeyUsage
	}{
		{all, nil, policy.AllUsages()},
		{all, wish(t, client), []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		{servers, nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		{servers, wish(t, server), []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
	} {
		chain, err := test.ca.Issue(t.Context(), asking(t, test.wish, "www.example.com"), 0)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(chain[0])
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(leaf.ExtKeyUsage, test.want) {
			t.Errorf("extended key usages %v, not %v", leaf.ExtKeyUsage, test.want)
		}
	}
	refused(t, servers, asking(t, wish(t, server, client), "www.example.com"), "does not allow certificates for the usage client")
	refused(t, all, asking(t, wish(t, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}), "www.example.com"), "the extended key usage 1.3.6.1.5.5.7.3.3 is asked for")
	refused(t, all, asking(t, wish(t), "www.example.com"), "do not parse")
}

func TestLimitsAreChecked(t *testing.T) {
	for want, c := range map[string]localca.Config{
		"is not a DNS name":      {Permitted: policy.Names{DNS: []string{"*"}}},
		"neither an IP address":  {Allowed: policy.Names{IP: []string{"x"}}},
		"is not a usage":         {Usages: []string{"x"}},
		"is not an address of a": {CRLURL: "ldap://a"},
		"what is revoked is -1s": {CRLLifetime: -time.Second},
	} {
		if _, err := localca.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
}
