// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

func encoded(t testing.TB, root, intermediate authority) []byte {
	t.Helper()
	b, err := (&CA{root: root, intermediate: intermediate}).encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newTestCA(t testing.TB) *CA {
	t.Helper()
	ca, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestDecodeRefusesWhatDoesNotFitTogether puts two CAs together in every wrong
// way: only who could seal can do it, and still it must be seen.
func TestDecodeRefusesWhatDoesNotFitTogether(t *testing.T) {
	a, b := newTestCA(t), newTestCA(t)
	good := encoded(t, a.root, a.intermediate)
	if _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	huge := bytes.Clone(good)
	binary.BigEndian.PutUint32(huge[1:], 1<<31)
	leaf := leafAuthority(t, a)
	for says, bad := range map[string][]byte{
		"version is unknown":                       append([]byte{2}, good[1:]...),
		"version is unknown ":                      {},
		"data after its end":                       append(bytes.Clone(good), 0),
		"a length is wrong":                        good[:len(good)-1],
		"a length is wrong ":                       huge,
		"cut short":                                good[:3],
		"root: its key is not":                     encoded(t, authority{a.root.cert, b.root.key}, a.intermediate),
		"the intermediate: its key":                encoded(t, a.root, authority{a.intermediate.cert, a.root.key}),
		"the root is not self-signed":              encoded(t, a.intermediate, a.intermediate),
		"the intermediate is not signed":           encoded(t, a.root, b.intermediate),
		"path lengths are wrong":                   encoded(t, a.root, a.root),
		"the intermediate: its certificate is not": encoded(t, a.root, leaf),
	} {
		if _, err := decode(bad); err == nil || !strings.Contains(err.Error()+" ", says) {
			t.Errorf("%v; want %q", err, says)
		}
	}
	for i := range good { // a changed byte may be outside what is signed, but never panics
		changed := bytes.Clone(good)
		changed[i] ^= 1
		_, _ = decode(changed)
	}
}

// leafAuthority is a certificate signed by the root that is no CA, and its key.
func leafAuthority(t testing.TB, ca *CA) authority {
	t.Helper()
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root.cert, key.Public(), ca.root.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

// FuzzDecode starts from the kept corpus, which holds a whole CA.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0})
	ca := newTestCA(f)
	f.Add(encoded(f, ca.root, ca.intermediate))
	f.Fuzz(func(t *testing.T, b []byte) {
		ca, err := decode(b)
		if err != nil {
			return
		}
		again, err := ca.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(again); err != nil {
			t.Fatalf("what was decoded does not decode again: %v", err)
		}
	})
}
