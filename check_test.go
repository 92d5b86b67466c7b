// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

func TestPutRefuses(t *testing.T) {
	root := newRoot(t, "root")
	intermediate := newAuthority(t, "intermediate", root)
	stranger := newAuthority(t, "stranger", root)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := intermediate.leaf(t, names("a.test"))
	with := func(change func(*tls.Certificate)) tls.Certificate {
		cert := intermediate.leaf(t, names("a.test"))
		change(&cert)
		return cert
	}
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprintf("n%d.test", i)
	}

	for _, test := range []struct {
		what string
		cert tls.Certificate
		want error
		says string
	}{
		{"nothing", tls.Certificate{}, keyturn.ErrEmpty, "there is no certificate"},
		{"no certificate", with(func(c *tls.Certificate) { c.Certificate = nil }), keyturn.ErrEmpty, "there is no certificate"},
		{"no key", with(func(c *tls.Certificate) { c.PrivateKey = nil }), keyturn.ErrEmpty, "there is no private key"},
		{"another key", with(func(c *tls.Certificate) { c.PrivateKey = newKey(t, x509.ECDSA) }), keyturn.ErrKeyMismatch, `"a.test"`},
		{"a key of another type", with(func(c *tls.Certificate) { c.PrivateKey = newKey(t, x509.RSA) }), keyturn.ErrKeyMismatch, `"a.test"`},
		{"a public key", with(func(c *tls.Certificate) { c.PrivateKey = newKey(t, x509.ECDSA).Public() }), keyturn.ErrUnsupportedKey, "not a crypto.Signer"},
		{"P-224", root.leafFor(t, p224, names("a.test")), keyturn.ErrUnsupportedKey, "P-224"},
		{"large RSA key", with(func(c *tls.Certificate) { c.PrivateKey = hugeRSA{} }), keyturn.ErrUnsupportedKey, "8193 bits"},
		{"unknown key", with(func(c *tls.Certificate) { c.PrivateKey = oddKey{} }), keyturn.ErrUnsupportedKey, "string"},
		{"expired", intermediate.leaf(t, names("a.test"), validity(-2*time.Hour, -time.Hour)), keyturn.ErrExpired, `leaf "a.test"`},
		{"not yet valid", intermediate.leaf(t, names("a.test"), validity(time.Hour, 2*time.Hour)), keyturn.ErrNotYetValid, "clock"},
		{"code signing", intermediate.leaf(t, names("a.test"), usages(x509.ExtKeyUsageCodeSigning)), keyturn.ErrWrongUsage, "serverAuth"},
		{"no names", intermediate.leaf(t), keyturn.ErrNoNames, "subject alternative name"},
		{"common name only", intermediate.leaf(t, func(c *x509.Certificate) { c.Subject.CommonName = "a.test" }), keyturn.ErrNoNames, `"a.test"`},
		{"names nobody can ask for", intermediate.leaf(t, names("*", "sp ace", "192.0.2.1.")), keyturn.ErrNoNames, "peer could ask for"},
		{"too many names", intermediate.leaf(t, names(many...)), keyturn.ErrTooLarge, "1001 names"},
		{"a stranger's intermediate", with(func(c *tls.Certificate) { c.Certificate[1] = stranger.above[0] }), keyturn.ErrBrokenChain, `"stranger"`},
		{"one too many", with(func(c *tls.Certificate) { c.Certificate = append(c.Certificate, stranger.above[0]) }), keyturn.ErrBrokenChain, `"intermediate" is not signed by "stranger"`},
		{"a gap", with(func(c *tls.Certificate) { c.Certificate[1] = root.cert.Raw }), keyturn.ErrBrokenChain, `"root"`},
		{"a namesake", with(func(c *tls.Certificate) { c.Certificate[1] = newAuthority(t, "intermediate", root).above[0] }), keyturn.ErrBrokenChain, "verification"},
		{"a signer that is no CA", underLeaf(t, good), keyturn.ErrBrokenChain, "parent certificate"},
		{"11 certificates", with(func(c *tls.Certificate) { c.Certificate = slices.Repeat(c.Certificate[:1], 11) }), keyturn.ErrTooLarge, "at most 10"},
		{"junk", with(func(c *tls.Certificate) { c.Certificate[1] = []byte("junk") }), nil, "parsing certificate 2 of 2"},
		{"a megabyte", with(func(c *tls.Certificate) { c.Certificate[1] = make([]byte, 1<<20) }), keyturn.ErrTooLarge, "at most 262144"},
	} {
		t.Run(test.what, func(t *testing.T) {
			var store keyturn.Store
			put(t, &store, "id", good)
			before, _ := store.Get("id")
			err := store.Put("id", test.cert)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Put = %v, want %v with %s", err, test.want, test.says)
			}
			if err != nil && !strings.HasPrefix(err.Error(), `keyturn: putting certificate "id": `) {
				t.Errorf("%v does not say what was being done", err)
			}
			for _, other := range allErrors {
				if other != test.want && errors.Is(err, other) {
					t.Errorf("%v is also %v", err, other)
				}
			}
			if after, err := store.GetCertificate(&tls.ClientHelloInfo{ServerName: "a.test"}); after != before || err != nil {
				t.Errorf("what was served is not served any more")
			}
		})
	}
}

var allErrors = []error{
	keyturn.ErrEmpty, keyturn.ErrTooLarge, keyturn.ErrKeyMismatch, keyturn.ErrUnsupportedKey, keyturn.ErrExpired, keyturn.ErrNotYetValid,
	keyturn.ErrWrongUsage, keyturn.ErrBrokenChain, keyturn.ErrNoNames, keyturn.ErrBadName, keyturn.ErrUncovered,
}

type hugeRSA struct{ crypto.Signer }

func (hugeRSA) Public() crypto.PublicKey {
	return &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 8192), E: 65537}
}

type oddKey struct{ crypto.Signer }

func (oddKey) Public() crypto.PublicKey { return "odd" }

// underLeaf returns a certificate that was signed with the key of another leaf.
func underLeaf(t testing.TB, cert tls.Certificate) tls.Certificate {
	a := &authority{cert: parse(t, cert.Certificate[0]), key: cert.PrivateKey.(crypto.Signer), above: cert.Certificate}
	return a.leaf(t, names("b.test"))
}

func TestPutAccepts(t *testing.T) {
	root := newRoot(t, "root")
	for _, test := range []struct {
		what string
		cert tls.Certificate
	}{
		{"self-signed", selfSigned(t)},
		{"RSA", root.leafFor(t, newKey(t, x509.RSA), names("a.test"))},
		{"Ed25519", root.leafFor(t, newKey(t, x509.Ed25519), names("a.test"))},
		{"any usage", root.leaf(t, names("a.test"), usages(x509.ExtKeyUsageAny))},
		{"no usage", root.leaf(t, names("a.test"), usages())},
		{"SPIFFE", root.leaf(t, uris("spiffe://example.org/web"))},
		{"a key elsewhere", elsewhere(root.leaf(t, names("a.test")))},
	} {
		var store keyturn.Store
		if err := store.Put("id", test.cert); err != nil {
			t.Errorf("%s: %v", test.what, err)
		}
	}
	var store keyturn.Store
	if err := store.Put("", root.leaf(t, names("a.test"))); !errors.Is(err, keyturn.ErrEmpty) {
		t.Errorf("Put with no id = %v", err)
	}
	if err := store.Put(strings.Repeat("x", 256), root.leaf(t, names("a.test"))); !errors.Is(err, keyturn.ErrTooLarge) || len(err.Error()) > 300 {
		t.Errorf("Put with a long id = %v", err)
	}
	put(t, &store, strings.Repeat("x", 255), root.leaf(t, names("a.test")))
}

func selfSigned(t testing.TB) tls.Certificate {
	a := newAuthority(t, "self", nil)
	template := *a.cert
	template.DNSNames = []string{"self.test"}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.key}
}

// A remoteKey signs and shows nothing else, like one in hardware.
type remoteKey struct{ key crypto.Signer }

func (k remoteKey) Public() crypto.PublicKey { return k.key.Public() }
func (k remoteKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.key.Sign(r, digest, opts)
}

func elsewhere(cert tls.Certificate) tls.Certificate {
	cert.PrivateKey = remoteKey{cert.PrivateKey.(crypto.Signer)}
	return cert
}

func TestPutPEM(t *testing.T) {
	root := newRoot(t, "root")
	cert := newAuthority(t, "intermediate", root).leaf(t, names("a.test"))
	chain, key := pemOf(t, cert)
	block := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	ec, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	rsaCert := root.leafFor(t, newKey(t, x509.RSA), names("a.test"))
	rsaChain, _ := pemOf(t, rsaCert)
	pkcs1 := x509.MarshalPKCS1PrivateKey(rsaCert.PrivateKey.(*rsa.PrivateKey))
	legacy := pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: pkcs1,
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"},
	})
	all := slices.Concat([]byte("a comment\n"), block("EC PARAMETERS", []byte{5, 0}), key, chain)

	for _, test := range []struct {
		what       string
		chain, key []byte
		want       error
		says       string // "" if it is accepted
	}{
		{"PKCS #8", chain, key, nil, ""},
		{"SEC 1", chain, block("EC PRIVATE KEY", ec), nil, ""},
		{"PKCS #1", rsaChain, block("RSA PRIVATE KEY", pkcs1), nil, ""},
		{"one file", all, all, nil, ""},
		{"nothing", nil, nil, keyturn.ErrEmpty, "no CERTIFICATE block in 0 bytes"},
		{"no certificate", key, key, keyturn.ErrEmpty, "no CERTIFICATE block"},
		{"no key", chain, chain, keyturn.ErrEmpty, "no PRIVATE KEY block"},
		{"half a key", chain, key[:len(key)/2], keyturn.ErrEmpty, "no PRIVATE KEY block"},
		{"half a certificate", chain[:100], key, keyturn.ErrEmpty, "no CERTIFICATE block"},
		{"junk in the key", chain, block("PRIVATE KEY", []byte("junk")), nil, "parsing the private key"},
		{"an encrypted key", chain, block("ENCRYPTED PRIVATE KEY", []byte("junk")), keyturn.ErrUnsupportedKey, "decrypt it"},
		{"a key encrypted in the old way", rsaChain, legacy, keyturn.ErrUnsupportedKey, "decrypt it"},
		{"an OpenSSH key", chain, block("OPENSSH PRIVATE KEY", []byte("junk")), keyturn.ErrUnsupportedKey, "PKCS #8"},
		{"too many", bytes.Repeat(chain, 6), key, keyturn.ErrTooLarge, "more than 10"},
		{"too large", bytes.Repeat([]byte("x"), 256<<10), key, keyturn.ErrTooLarge, "at most 262144"},
		{"another key", chain, block("RSA PRIVATE KEY", pkcs1), keyturn.ErrKeyMismatch, "different pairs"},
	} {
		var store keyturn.Store
		err := store.PutPEM("id", test.chain, test.key)
		switch {
		case test.says == "" && err != nil:
			t.Errorf("%s: %v", test.what, err)
		case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), `"id"`)):
			t.Errorf("%s: error %v, want %s", test.what, err, test.says)
		case test.want != nil && !errors.Is(err, test.want):
			t.Errorf("%s: error %v, want %v", test.what, err, test.want)
		case (store.Len() == 1) != (err == nil):
			t.Errorf("%s: Len = %d after %v", test.what, store.Len(), err)
		}
	}
}

func TestPutDER(t *testing.T) {
	root := newRoot(t, "root")
	cert := root.leaf(t, names("a.test"))
	key := pkcs8Of(t, cert)
	for _, test := range []struct {
		chain [][]byte
		key   []byte
		want  error
		says  string
	}{
		{cert.Certificate, key, nil, ""},
		{nil, key, keyturn.ErrEmpty, "no certificate"},
		{cert.Certificate, nil, keyturn.ErrEmpty, "no private key"},
		{cert.Certificate, []byte("junk"), nil, "parsing the private key"},
		{cert.Certificate, make([]byte, 256<<10), keyturn.ErrTooLarge, "at most"},
	} {
		var store keyturn.Store
		err := store.PutDER("id", test.chain, test.key)
		if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) || !errors.Is(err, test.want) && test.want != nil {
			t.Errorf("PutDER = %v, want %v with %q", err, test.want, test.says)
		}
	}
}
