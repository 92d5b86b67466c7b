// SPDX-License-Identifier: Apache-2.0

package localca_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/localca"
)

func newCA(t testing.TB, c localca.Config) *localca.CA {
	t.Helper()
	ca, err := localca.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestIssuer(t *testing.T) {
	for _, kt := range []issuer.KeyType{"", issuer.ECDSAP384, issuer.RSA2048, issuer.Ed25519} {
		t.Run("CA "+kt.String(), func(t *testing.T) {
			ca := newCA(t, localca.Config{KeyType: kt})
			var certified []issuer.KeyType // all, once: making RSA keys takes seconds
			if kt != "" {
				certified = []issuer.KeyType{issuer.ECDSAP256, issuer.Ed25519}
			}
			issuertest.Run(t, func(*testing.T) issuertest.Config {
				return issuertest.Config{
					Issuer: ca, Root: ca.Root(), KeyTypes: certified,
					MaxLifetime: localca.DefaultMaxLifetime, MaxBackdate: 2 * time.Minute, LifetimeSlack: 10 * time.Second, SerialBits: 120,
				}
			})
		})
	}
}

func TestAuthorities(t *testing.T) {
	ca := newCA(t, localca.Config{Name: "Example"})
	root, inter := ca.Root(), ca.Intermediate()
	for _, c := range []struct {
		cert    *x509.Certificate
		prefix  string
		pathLen int
		life    time.Duration
	}{
		{root, "Example Root CA ", 1, localca.DefaultRootLifetime},
		{inter, "Example Intermediate CA ", 0, localca.DefaultIntermediateLifetime},
	} {
		if cn := c.cert.Subject.CommonName; !strings.HasPrefix(cn, c.prefix) || len(cn) != len(c.prefix)+8 {
			t.Errorf("common name %q", cn)
		}
		if !c.cert.IsCA || c.cert.MaxPathLen != c.pathLen || c.cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
			t.Errorf("%s: CA %v, path length %d, key usage %b", c.prefix, c.cert.IsCA, c.cert.MaxPathLen, c.cert.KeyUsage)
		}
		if d := time.Until(c.cert.NotAfter) - c.life; d.Abs() > time.Minute {
			t.Errorf("%s ends at %s", c.prefix, c.cert.NotAfter)
		}
		if len(c.cert.SubjectKeyId) != 20 {
			t.Errorf("%s: key identifier %x", c.prefix, c.cert.SubjectKeyId)
		}
	}
	if string(inter.AuthorityKeyId) != string(root.SubjectKeyId) || inter.CheckSignatureFrom(root) != nil {
		t.Error("the intermediate does not belong to the root")
	}
	block, rest := pem.Decode(ca.RootPEM())
	if block == nil || len(rest) != 0 || string(block.Bytes) != string(root.Raw) {
		t.Error("the PEM text is not the root")
	}
}

func TestLeaf(t *testing.T) {
	ca := newCA(t, localca.Config{})
	u, err := url.Parse("spiffe://example.com/web")
	if err != nil {
		t.Fatal(err)
	}
	csr := issuertest.RequestWith(t, x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "other.example.com", Organization: []string{"Evil"}},
		DNSNames: []string{"www.example.com"},
		URIs:     []*url.URL{u},
	}, issuertest.Key(t, issuer.ECDSAP256))
	leaf, _ := issuertest.Issue(t, ca, csr, 0)
	if len(leaf.Subject.Names) != 0 {
		t.Errorf("the subject %s was copied", leaf.Subject)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != u.String() {
		t.Errorf("URIs %v", leaf.URIs)
	}
	if got := leaf.ExtKeyUsage; len(got) != 2 || got[0] != x509.ExtKeyUsageServerAuth || got[1] != x509.ExtKeyUsageClientAuth {
		t.Errorf("extended key usage %v", got)
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.SubjectKeyId) != 20 {
		t.Errorf("key usage %b, key identifier %x", leaf.KeyUsage, leaf.SubjectKeyId)
	}
	if leaf.SerialNumber.BitLen() != 127 {
		t.Errorf("a serial number of %d bits", leaf.SerialNumber.BitLen())
	}
	for _, e := range leaf.Extensions { // RFC 5280 section 4.2.1.6: critical beside an empty subject
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) && !e.Critical {
			t.Error("the subject alternative names are not critical")
		}
	}
}

func TestValidity(t *testing.T) {
	year := 365 * 24 * time.Hour
	for _, test := range []struct {
		title              string
		config             localca.Config
		age, wish          time.Duration
		backdate, lifetime time.Duration
	}{
		{title: "defaults", backdate: time.Minute, lifetime: 720 * time.Hour},
		{title: "wish", wish: time.Hour, backdate: time.Minute, lifetime: time.Hour},
		{title: "too long", wish: year, backdate: time.Minute, lifetime: 90 * 24 * time.Hour},
		{title: "short", wish: 3 * time.Minute, backdate: 18 * time.Second, lifetime: 3 * time.Minute},
		{title: "configured", config: localca.Config{Lifetime: year, Backdate: time.Hour}, age: 2 * time.Hour, backdate: time.Hour, lifetime: year},
		{title: "max below default", config: localca.Config{MaxLifetime: time.Hour}, backdate: time.Minute, lifetime: time.Hour},
		{title: "short wish, configured backdate", config: localca.Config{Backdate: time.Minute}, wish: time.Minute, backdate: time.Minute, lifetime: time.Minute},
		{title: "never before the CA", config: localca.Config{Backdate: time.Hour}, backdate: time.Minute, lifetime: 720 * time.Hour},
		{title: "never after the CA", config: localca.Config{IntermediateLifetime: 100 * time.Hour}, age: 90 * time.Hour, backdate: time.Minute, lifetime: 10 * time.Hour},
	} {
		t.Run(test.title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := newCA(t, test.config)
				time.Sleep(test.age) // in the bubble: no time passes
				now := time.Now()
				leaf, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), test.wish)
				if b, l := now.Sub(leaf.NotBefore), leaf.NotAfter.Sub(now); b != test.backdate || l != test.lifetime {
					t.Errorf("from %s before now to %s after it; want %s and %s", b, l, test.backdate, test.lifetime)
				}
			})
		})
	}
}

func TestEndedCASignsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, localca.Config{IntermediateLifetime: time.Hour})
		time.Sleep(time.Hour)
		_, err := ca.Issue(t.Context(), issuertest.Named(t, "www.example.com"), 0)
		if !errors.Is(err, localca.ErrEnded) || errors.Is(err, issuer.ErrRefused) {
			t.Fatal(err)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for want, c := range map[string]localca.Config{
		"lifetime is -1h0m0s":         {Lifetime: -time.Hour},
		"backdating is -1s":           {Backdate: -time.Second},
		"above the longest lifetime":  {Lifetime: 2 * time.Hour, MaxLifetime: time.Hour},
		"above the root's":            {IntermediateLifetime: 2 * time.Hour, RootLifetime: time.Hour},
		"unknown key type":            {KeyType: "dsa"},
		"has 39 characters":           {Name: strings.Repeat("x", 39)},
		"intermediate's lifetime is ": {IntermediateLifetime: -1},
	} {
		if _, err := localca.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v; want %q", c, err, want)
		}
	}
	newCA(t, localca.Config{Name: strings.Repeat("ä", 38)})
	newCA(t, localca.Config{RootLifetime: time.Hour})
	newCA(t, localca.Config{IntermediateLifetime: 20 * 365 * 24 * time.Hour})
}

func TestNames(t *testing.T) {
	ca := newCA(t, localca.Config{})
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3)
	for name, good := range map[string]bool{
		"localhost": true, "a.b": true, "WWW.Example.COM": true, "*.example.com": true, "xn--bcher-kva.example": true, "1.2.3.4.in-addr.arpa": true,
		"r3---sn.example.com": true, long + strings.Repeat("a", 61): true, strings.Repeat("a", 63) + ".com": true, "3com.com": true,
		"": false, ".": false, "a..b": false, ".a": false, "a.": false, "*": false, "*.com": false, "*.*.example.com": false, "w*.example.com": false,
		"a.*.example.com": false, "-a.com": false, "a-.com": false, "a_b.com": false, "a b.com": false, "a.com:443": false, "a@b.com": false,
		"1.2.3.4": false, "a.1": false, "a\x00b.com": false, long + strings.Repeat("a", 62): false, strings.Repeat("a", 64) + ".com": false, "*.1.2": false,
	} {
		_, err := ca.Issue(t.Context(), issuertest.Named(t, name), 0)
		if good && err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if !good && !errors.Is(err, issuer.ErrRefused) {
			t.Errorf("%q: %v; want it refused", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	ca := newCA(t, localca.Config{})
	curve, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1536)
	if err != nil {
		t.Fatal(err)
	}
	names := x509.CertificateRequest{DNSNames: []string{"www.example.com"}}
	var many []string
	for range 101 {
		many = append(many, "www.example.com")
	}
	san := func(tag int, value string) x509.CertificateRequest {
		b, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(value)}})
		if err != nil {
			t.Fatal(err)
		}
		return x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: b}}}
	}
	key := issuertest.Key(t, issuer.ECDSAP256)
	for title, csr := range map[string]*x509.CertificateRequest{
		"is on P-224":                   issuertest.RequestWith(t, names, curve),
		"has 1536 bits":                 issuertest.RequestWith(t, names, small),
		"there is no request":           nil,
		"101 subject alternative names": issuertest.RequestWith(t, x509.CertificateRequest{DNSNames: many}, key),
		"tag 1":                         issuertest.RequestWith(t, x509.CertificateRequest{EmailAddresses: []string{"a@example.com"}}, key),
		"is in the form of IPv6":        issuertest.RequestWith(t, san(7, strings.Repeat("\x00", 10)+"\xff\xff\x0a\x00\x00\x01"), key),
		"tag 8":                         issuertest.RequestWith(t, san(8, "\x2a\x03"), key), // registeredID
		`"mailto:a" is not an absolute`: issuertest.RequestWith(t, san(6, "mailto:a"), key),
		"0 subject alternative names":   issuertest.RequestWith(t, x509.CertificateRequest{Subject: pkix.Name{CommonName: "www.example.com"}}, key),
	} {
		_, err := ca.Issue(t.Context(), csr, 0)
		if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), title) {
			t.Errorf("%v; want it refused: %s", err, title)
		}
	}
}
