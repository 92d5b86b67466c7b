// SPDX-License-Identifier: Apache-2.0

package localca_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/seal"
)

func sealingKey(t testing.TB) *seal.PrivateKey {
	t.Helper()
	k, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealedCAOpensToTheSame(t *testing.T) {
	k, ad := sealingKey(t), []byte("ca/internal")
	for _, kt := range []issuer.KeyType{issuer.ECDSAP256, issuer.ECDSAP384, issuer.RSA2048, issuer.Ed25519} {
		t.Run(kt.String(), func(t *testing.T) {
			ca := newCA(t, localca.Config{Name: "Example", KeyType: kt})
			sealed, err := ca.Seal(k.Public(), ad)
			if err != nil {
				t.Fatal(err)
			}
			c := localca.Config{Name: "Example", KeyType: kt, Lifetime: time.Hour}
			got, err := localca.Open([]*seal.PrivateKey{sealingKey(t), k}, ad, sealed, c)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Root().Equal(ca.Root()) || !got.Intermediate().Equal(ca.Intermediate()) {
				t.Error("the certificates differ")
			}
			leaf, _ := issuertest.Issue(t, got, issuertest.Named(t, "www.example.com"), 0)
			if d := time.Until(leaf.NotAfter); d > time.Hour {
				t.Errorf("the lifetime %s is not the configured one", d)
			}
			again, err := got.Seal(k.Public(), ad) // both keys are still there
			if err != nil {
				t.Fatal(err)
			}
			if _, err := localca.Open([]*seal.PrivateKey{k}, ad, again, localca.Config{}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	k, ad := sealingKey(t), []byte("ca/internal")
	ca := newCA(t, localca.Config{Name: "Example"})
	sealed, err := ca.Seal(k.Public(), ad)
	if err != nil {
		t.Fatal(err)
	}
	keys := []*seal.PrivateKey{k}
	for _, test := range []struct {
		title  string
		keys   []*seal.PrivateKey
		ad     string
		sealed []byte
		config localca.Config
		is     error
		says   string
	}{
		{title: "other key", keys: []*seal.PrivateKey{sealingKey(t)}, ad: "ca/internal", sealed: sealed, is: seal.ErrNoKey},
		{title: "no key", ad: "ca/internal", sealed: sealed, is: seal.ErrNoKey},
		{title: "other associated data", keys: keys, ad: "ca/other", sealed: sealed, is: seal.ErrOpen},
		{title: "cut", keys: keys, ad: "ca/internal", sealed: sealed[:len(sealed)-1], is: seal.ErrOpen},
		{title: "longer", keys: keys, ad: "ca/internal", sealed: append(bytes.Clone(sealed), 0), is: seal.ErrOpen},
		{title: "other name", keys: keys, ad: "ca/internal", sealed: sealed, config: localca.Config{Name: "Exam"}, says: `names it "Exam"`},
		{title: "other key type", keys: keys, ad: "ca/internal", sealed: sealed, config: localca.Config{KeyType: issuer.RSA2048}, says: "are ecdsa-p256, but the configuration says rsa-2048"},
		{title: "bad configuration", keys: keys, ad: "ca/internal", sealed: sealed, config: localca.Config{Lifetime: -1}, says: "negative"},
	} {
		t.Run(test.title, func(t *testing.T) {
			got, err := localca.Open(test.keys, []byte(test.ad), test.sealed, test.config)
			if got != nil || err == nil || test.is != nil && !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
	t.Run("any changed byte", func(t *testing.T) {
		for i := range sealed {
			if i > 64 && i < len(sealed)-64 && i%37 != 0 {
				continue // every position in the header and at the end, a sample of the rest
			}
			changed := bytes.Clone(sealed)
			changed[i] ^= 0x10
			if _, err := localca.Open(keys, ad, changed, localca.Config{}); err == nil {
				t.Fatalf("opened with byte %d changed", i)
			}
		}
	})
}

func TestKeysNeverPrint(t *testing.T) {
	ca := newCA(t, localca.Config{Name: "Example"})
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "ca", ca, "copy", *ca, "in", struct{ CA *localca.CA }{ca})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "ca", ca, "copy", *ca)
	j, err := json.Marshal(map[string]any{"ca": ca, "copy": *ca})
	if err != nil {
		t.Fatal(err)
	}
	log.Write(j)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		fmt.Fprintf(&log, verb+" "+verb+" "+verb+"\n", ca, *ca, []any{ca, *ca})
	}
	for _, key := range localca.PrivateKeys(ca) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		secret := der[len(der)-100 : len(der)-80]
		scalar, err := localca.Scalar(key)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{secret, scalar, scalar[:8]} {
			for _, form := range []string{string(b), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b), strings.Trim(fmt.Sprint(b), "[]"), fmt.Sprintf("%X", b)} {
				if strings.Contains(log.String(), form) {
					t.Fatal("a private key was printed")
				}
			}
		}
	}
	if n := strings.Count(log.String(), "Example Root CA "); n != 3+2+2+7*4 {
		t.Errorf("the name is printed %d times:\n%s", n, &log)
	}
}
