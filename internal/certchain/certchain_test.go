// SPDX-License-Identifier: Apache-2.0

package certchain_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/certchain"
	"github.com/keyturn/keyturn/issuer"
)

// A ca has a name and a key, and may have several certificates.
type ca struct {
	name string
	key  crypto.Signer
}

func newCA(t *testing.T, name string) ca {
	t.Helper()
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return ca{name, key}
}

// certify has a CA sign another one's certificate, or a leaf's, with changes.
func (by ca) certify(t *testing.T, of ca, isCA bool, changes ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
			BasicConstraintsValid: true, IsCA: isCA,
		}
	}
	made := template(of.name)
	for _, change := range changes {
		change(made)
	}
	der, err := x509.CreateCertificate(rand.Reader, made, template(by.name), of.key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestLink(t *testing.T) {
	root, other, policy, signing, web := newCA(t, "root"), newCA(t, "other"), newCA(t, "policy"), newCA(t, "signing"), newCA(t, "web")
	namesake := newCA(t, "signing")
	leaf, inter, upper := signing.certify(t, web, false), policy.certify(t, signing, true), root.certify(t, policy, true)
	top := root.certify(t, root, true)
	for title, c := range map[string]struct {
		leaf *x509.Certificate
		cas  []*x509.Certificate
		want []*x509.Certificate // nil for an error
	}{
		"in order":              {leaf, []*x509.Certificate{inter, upper, top}, []*x509.Certificate{leaf, inter, upper}},
		"in another":            {leaf, []*x509.Certificate{top, upper, leaf, inter}, []*x509.Certificate{leaf, inter, upper}},
		"without the root":      {leaf, []*x509.Certificate{upper, inter}, []*x509.Certificate{leaf, inter, upper}},
		"with a hole":           {leaf, []*x509.Certificate{inter, top}, []*x509.Certificate{leaf, inter}},
		"signed by the root":    {root.certify(t, web, false), []*x509.Certificate{top}, []*x509.Certificate{root.certify(t, web, false)}},
		"another of that name":  {leaf, []*x509.Certificate{policy.certify(t, namesake, true), inter, upper}, []*x509.Certificate{leaf, inter, upper}},
		"self-signed":           {web.certify(t, web, false), nil, []*x509.Certificate{web.certify(t, web, false)}},
		"of another CA":         {leaf, []*x509.Certificate{policy.certify(t, namesake, true), top}, nil},
		"nothing":               {leaf, nil, nil},
		"one that is not a CA":  {leaf, []*x509.Certificate{policy.certify(t, signing, false)}, nil},
		"unrelated CAs as well": {leaf, []*x509.Certificate{other.certify(t, other, true), inter, upper}, []*x509.Certificate{leaf, inter, upper}},
	} {
		t.Run(title, func(t *testing.T) {
			chain, err := certchain.Link(c.leaf, c.cas)
			if c.want == nil {
				if !errors.Is(err, issuer.ErrBrokenChain) || chain != nil {
					t.Errorf("%d certificates, error %v; want %v", len(chain), err, issuer.ErrBrokenChain)
				}
				return
			}
			if err != nil || len(chain) != len(c.want) {
				t.Fatalf("%d certificates, error %v; want %d", len(chain), err, len(c.want))
			}
			for i, der := range chain {
				if cert, err := x509.ParseCertificate(der); err != nil || cert.Subject.String() != c.want[i].Subject.String() ||
					i > 0 && !bytes.Equal(der, c.want[i].Raw) {
					t.Errorf("certificate %d is %v (%v)", i+1, cert.Subject, err)
				}
			}
		})
	}
}

// TestCircle: two CAs that have signed each other are there once.
func TestCircle(t *testing.T) {
	a, b, web := newCA(t, "a"), newCA(t, "b"), newCA(t, "web")
	chain, err := certchain.Link(a.certify(t, web, false), []*x509.Certificate{b.certify(t, a, true), a.certify(t, b, true)})
	if err != nil || len(chain) != 3 {
		t.Errorf("%d certificates, error %v; want three", len(chain), err)
	}
}

// TestNewKey has a root that gets a new key, which its former one vouches for.
func TestNewKey(t *testing.T) {
	old, web := newCA(t, "root"), newCA(t, "web")
	next := newCA(t, old.name)
	between, top := old.certify(t, next, true, func(c *x509.Certificate) { c.AuthorityKeyId = []byte("old") }), old.certify(t, old, true)
	for title, cas := range map[string][]*x509.Certificate{"with the old root": {top, between}, "without": {between}} {
		chain, err := certchain.Link(next.certify(t, web, false), cas)
		if err != nil || len(chain) != 2 || !bytes.Equal(chain[1], between.Raw) {
			t.Errorf("%s: %d certificates, error %v; want what vouches for the new key", title, len(chain), err)
		}
	}
}

// TestRenewed has two certificates of one CA.
func TestRenewed(t *testing.T) {
	root, ca, web := newCA(t, "root"), newCA(t, "ca"), newCA(t, "web")
	ended := root.certify(t, ca, true, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(-time.Minute) })
	early := root.certify(t, ca, true, func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(time.Minute) })
	good := root.certify(t, ca, true)
	for want, cas := range map[*x509.Certificate][]*x509.Certificate{good: {ended, early, good}, ended: {ended, early}} {
		chain, err := certchain.Link(ca.certify(t, web, false), cas)
		if err != nil || len(chain) != 2 || !bytes.Equal(chain[1], want.Raw) {
			t.Errorf("%d certificates, error %v; want the CA's until %s", len(chain), err, want.NotAfter)
		}
	}
}

func TestParse(t *testing.T) {
	root := newCA(t, "root")
	one := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.certify(t, root, true).Raw}))
	for text, want := range map[string]int{
		"": 0, " \n": 0, one: 1, "# root\n" + one + "\n\n" + one: 2, strings.Repeat(one, 20): 20,
	} {
		certs, err := certchain.Parse(text)
		if err != nil || len(certs) != want {
			t.Errorf("%d certificates, error %v; want %d", len(certs), err, want)
		}
	}
	for text, want := range map[string]string{
		"junk":                   "not PEM",
		one + "junk":             "not PEM",
		strings.Repeat(one, 21):  "more than 20",
		strings.Repeat("A", 100): "not PEM",
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "malformed",
	} {
		if _, err := certchain.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
	for _, text := range []string{"", one + one} {
		if _, err := certchain.One(text); err == nil || !strings.Contains(err.Error(), "not one") {
			t.Errorf("the error is %v", err)
		}
	}
}
