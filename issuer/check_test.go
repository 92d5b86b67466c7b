// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// now is when the answers are checked; everything is valid from an hour before
// to an hour after it, unless a test says otherwise.
var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// A signer is a CA that signs whatever a test wants.
type signer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign signs for a public key; by the key itself where the signer is nil.
func (s *signer) sign(t testing.TB, template *x509.Certificate, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if template.NotBefore.IsZero() {
		template.NotBefore = now.Add(-time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = now.Add(time.Hour)
	}
	template.SerialNumber = big.NewInt(1)
	template.BasicConstraintsValid = true
	if s == nil {
		s = &signer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// ca makes a CA below s; change may be nil.
func (s *signer) ca(t testing.TB, name string, change func(*x509.Certificate)) *signer {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLen: -1}
	if change != nil {
		change(template)
	}
	key := newKey(t)
	return &signer{s.sign(t, template, key), key}
}

// leaf returns what is a good answer before a test spoils it.
func leaf(change func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{
		DNSNames:    []string{"www.example.com", "*.example.org"},
		IPAddresses: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("2001:db8::1")},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(c)
	}
	return c
}

func der(certs ...*x509.Certificate) (chain [][]byte) {
	for _, c := range certs {
		chain = append(chain, c.Raw)
	}
	return chain
}

// world is a root, an intermediate and a request.
type world struct {
	root, inter *signer
	key         crypto.Signer
	csr         *x509.CertificateRequest
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{key: newKey(t)}
	w.root = (*signer)(nil).ca(t, "Root", nil)
	w.inter = w.root.ca(t, "Intermediate", nil)
	var err error
	w.csr, err = issuer.NewRequest(w.key, []string{"www.example.com", "*.example.org", "10.0.0.1", "2001:db8::1"})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestCheckTakesGoodChains(t *testing.T) {
	w := newWorld(t)
	expiredRoot := (*signer)(nil).ca(t, "Old root", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })
	belowExpired := expiredRoot.ca(t, "Below", nil)
	for title, chain := range map[string][][]byte{
		"alone":             der(w.root.sign(t, leaf(nil), w.key)),
		"self-signed":       der((*signer)(nil).sign(t, leaf(nil), w.key)),
		"with intermediate": der(w.inter.sign(t, leaf(nil), w.key), w.inter.cert),
		"with root":         der(w.inter.sign(t, leaf(nil), w.key), w.inter.cert, w.root.cert),
		"root alone":        der(w.root.sign(t, leaf(nil), w.key), w.root.cert),
		"expired root":      der(belowExpired.sign(t, leaf(nil), w.key), belowExpired.cert, expiredRoot.cert),
		"no key usage":      der(w.root.sign(t, leaf(func(c *x509.Certificate) { c.KeyUsage = 0 }), w.key)),
		"other case, twice": der(w.root.sign(t, leaf(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "WWW.Example.COM") }), w.key)),
		"ends now":          der(w.root.sign(t, leaf(func(c *x509.Certificate) { c.NotAfter = now }), w.key)),
		"begins now":        der(w.root.sign(t, leaf(func(c *x509.Certificate) { c.NotBefore = now }), w.key)),
		"common name":       der(w.root.sign(t, leaf(func(c *x509.Certificate) { c.Subject.CommonName = "www.example.com" }), w.key)),
	} {
		t.Run(title, func(t *testing.T) {
			got, err := issuer.Check(chain, w.csr, now)
			if err != nil || !bytes.Equal(got.Raw, chain[0]) {
				t.Fatal(err)
			}
		})
	}
}

func TestCheckRefuses(t *testing.T) {
	w := newWorld(t)
	signed := func(change func(*x509.Certificate)) [][]byte {
		return der(w.inter.sign(t, leaf(change), w.key), w.inter.cert)
	}
	below := func(change func(*x509.Certificate)) [][]byte {
		ca := w.root.ca(t, "Changed", change)
		return der(ca.sign(t, leaf(nil), w.key), ca.cert, w.root.cert)
	}
	good := signed(nil)
	foreign := newKey(t)
	impostor := (*signer)(nil).ca(t, "Intermediate", nil)
	short := w.root.ca(t, "Short", func(c *x509.Certificate) { c.MaxPathLenZero, c.MaxPathLen = true, 0 })
	tooDeep := short.ca(t, "Too deep", nil)
	noCA := w.inter.sign(t, leaf(func(c *x509.Certificate) { c.Subject.CommonName = "No CA" }), foreign)
	u, err := url.Parse("spiffe://example.com/x")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		title string
		chain [][]byte
		want  error
		says  string
	}{
		{"empty", nil, issuer.ErrBrokenChain, "it has 0 certificates"},
		{"empty certificate", [][]byte{{}}, issuer.ErrBrokenChain, "certificate 1 of 1"},
		{"junk", [][]byte{good[0], []byte("junk")}, issuer.ErrBrokenChain, "certificate 2 of 2"},
		{"data after the leaf", [][]byte{append(bytes.Clone(good[0]), 0), good[1]}, issuer.ErrBrokenChain, "trailing data"},
		{"eleven", append(signed(nil), slices.Repeat([][]byte{w.root.cert.Raw}, 9)...), issuer.ErrBrokenChain, "it has 11 certificates"},
		{"too big", [][]byte{good[0], make([]byte, issuer.MaxChainSize)}, issuer.ErrBrokenChain, "bytes"},
		{"gap", der(w.inter.sign(t, leaf(nil), w.key), w.root.cert), issuer.ErrBrokenChain, `is issued by "CN=Intermediate", but certificate 2 is "CN=Root"`},
		{"wrong order", der(w.inter.sign(t, leaf(nil), w.key), w.root.cert, w.inter.cert), issuer.ErrBrokenChain, "certificate 2"},
		{"twice the leaf", der(w.inter.sign(t, leaf(nil), w.key), w.inter.sign(t, leaf(nil), w.key)), issuer.ErrBrokenChain, ""},
		{"same name, other key", der(w.inter.sign(t, leaf(nil), w.key), impostor.cert), issuer.ErrBrokenChain, "is not signed by certificate 2"},
		{"parent is no CA", der((&signer{noCA, foreign}).sign(t, leaf(nil), w.key), noCA), issuer.ErrBrokenChain, ""},
		{"path length", der(tooDeep.sign(t, leaf(nil), w.key), tooDeep.cert, short.cert, w.root.cert), issuer.ErrBrokenChain, "too many intermediates"},
		{"name constraints", below(func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.net"}
		}), issuer.ErrBrokenChain, "not permitted"},
		{"unknown critical extension", signed(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 3}, Critical: true, Value: []byte{5, 0}}} // RFC 6962 section 3.1: a precertificate
		}), issuer.ErrBrokenChain, "unhandled critical extension"},

		{"other key", der(w.inter.sign(t, leaf(nil), foreign), w.inter.cert), issuer.ErrWrongKey, "www.example.com"},
		{"the CA's own certificate", der(w.inter.cert), issuer.ErrWrongKey, ""},

		{"no names", signed(func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }), issuer.ErrWrongNames, "missing: *.example.org, 10.0.0.1, 2001:db8::1, www.example.com"},
		{"name missing", signed(func(c *x509.Certificate) { c.DNSNames = c.DNSNames[:1] }), issuer.ErrWrongNames, "missing: *.example.org"},
		{"address missing", signed(func(c *x509.Certificate) { c.IPAddresses = c.IPAddresses[:1] }), issuer.ErrWrongNames, "missing: 2001:db8::1"},
		{"name added", signed(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "evil.example") }), issuer.ErrWrongNames, "not asked for: evil.example"},
		{"address as a name", signed(func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = c.IPAddresses[1:], append(c.DNSNames, "10.0.0.1")
		}), issuer.ErrWrongNames, "missing: 10.0.0.1; not asked for: 10.0.0.1"},
		{"URI added", signed(func(c *x509.Certificate) { c.URIs = []*url.URL{u} }), issuer.ErrWrongNames, `not asked for: spiffe`},
		{"e-mail address added", signed(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example.com"} }), issuer.ErrWrongNames, `GeneralName[1]`},
		{"a kind added that crypto/x509 leaves out", signed(withRegisteredID), issuer.ErrWrongNames, `not asked for: GeneralName[8]`},
		{"hostile name", signed(func(c *x509.Certificate) { c.DNSNames = append(c.DNSNames, "a\nlevel=error") }), issuer.ErrWrongNames, "not asked for: a level=error"},
		{"common name only", signed(func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames, c.IPAddresses = "www.example.com", nil, nil
		}), issuer.ErrWrongNames, "missing"},

		{"ended", signed(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), issuer.ErrExpired, "2026-11-22T11:59:59Z"},
		{"not begun", signed(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }), issuer.ErrNotYetValid, "compare the clocks"},
		{"intermediate ended", below(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), issuer.ErrExpired, "certificate 2"},
		{"intermediate not begun", below(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }), issuer.ErrNotYetValid, "certificate 2"},

		{"no extended key usage", signed(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), issuer.ErrWrongUsage, "serverAuth"},
		{"for clients", signed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), issuer.ErrWrongUsage, "serverAuth"},
		{"key usage", signed(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), issuer.ErrWrongUsage, "digitalSignature"},
		{"a CA", signed(func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = true, -1 }), issuer.ErrWrongUsage, "is a CA"},
		{"intermediate for clients", below(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), issuer.ErrWrongUsage, "intermediate"},
	} {
		t.Run(test.title, func(t *testing.T) {
			got, err := issuer.Check(test.chain, w.csr, now)
			if got != nil || !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Fatalf("%v; want %v, with %q", err, test.want, test.says)
			}
			for _, other := range []error{issuer.ErrWrongKey, issuer.ErrWrongNames, issuer.ErrExpired, issuer.ErrNotYetValid, issuer.ErrBrokenChain, issuer.ErrWrongUsage} {
				if other != test.want && errors.Is(err, other) {
					t.Errorf("it is also %v", other)
				}
			}
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("the error has more than one line: %q", err)
			}
		})
	}
	if _, err := issuer.Check(good, nil, now); err == nil {
		t.Error("checked against no request")
	}
}

// withRegisteredID puts a registeredID beside the names.
func withRegisteredID(c *x509.Certificate) {
	raw := []asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, 0x03}}}
	for _, n := range c.DNSNames {
		raw = append(raw, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(n)})
	}
	for _, ip := range c.IPAddresses {
		if v4 := ip.To4(); v4 != nil {
			ip = v4
		}
		raw = append(raw, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 7, Bytes: ip})
	}
	value, err := asn1.Marshal(raw)
	if err != nil {
		panic(err)
	}
	c.DNSNames, c.IPAddresses = nil, nil
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
}

// FuzzCheck changes the leaf of a good chain: only the good one passes.
func FuzzCheck(f *testing.F) {
	w := newWorld(f)
	signed := w.inter.sign(f, leaf(nil), w.key)
	good := der(signed, w.inter.cert)
	f.Add(good[0])
	f.Add(good[1])
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := issuer.Check([][]byte{b, good[1]}, w.csr, now)
		if err == nil && !bytes.Equal(got.RawTBSCertificate, signed.RawTBSCertificate) {
			t.Fatal("a changed leaf passed")
		}
	})
}

// TestCheckFor asks for another use.
func TestCheckFor(t *testing.T) {
	w := newWorld(t)
	server, client := x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth
	servers := w.root.ca(t, "Servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{server} })
	for _, test := range []struct {
		by     *signer
		usages []x509.ExtKeyUsage
		ok     bool
	}{
		{w.inter, []x509.ExtKeyUsage{server, client}, true},
		{w.inter, []x509.ExtKeyUsage{client}, true},
		{w.inter, []x509.ExtKeyUsage{server}, false},
		{w.inter, nil, false},
		{servers, []x509.ExtKeyUsage{client}, false},
	} {
		chain := der(test.by.sign(t, leaf(func(c *x509.Certificate) { c.ExtKeyUsage = test.usages }), w.key), test.by.cert)
		got, err := issuer.CheckFor(chain, w.csr, now, client)
		if test.ok && (err != nil || !bytes.Equal(got.Raw, chain[0])) || !test.ok && !errors.Is(err, issuer.ErrWrongUsage) {
			t.Errorf("%v for clients: %v", test.usages, err)
		}
	}
}
