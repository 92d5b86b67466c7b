// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn"
)

// permutations calls f with every order of chain.
func permutations(chain [][]byte, f func([][]byte)) {
	var extend func(done, rest [][]byte)
	extend = func(done, rest [][]byte) {
		if len(rest) == 0 {
			f(done)
		}
		for i := range rest {
			extend(append(slices.Clone(done), rest[i]), slices.Delete(slices.Clone(rest), i, i+1))
		}
	}
	extend(nil, chain)
}

func TestChainIsPutInOrder(t *testing.T) {
	root := newRoot(t, "root")
	upper := newAuthority(t, "upper", root)
	cert := newAuthority(t, "lower", upper).leaf(t, names("a.test"))
	inOrder := append(slices.Clone(cert.Certificate), root.cert.Raw)
	if len(inOrder) != 4 {
		t.Fatalf("the chain has %d certificates", len(inOrder))
	}
	count := 0
	try := func(chain [][]byte) {
		count++
		var store keyturn.Store
		given := slices.Clone(chain)
		put(t, &store, "id", tls.Certificate{Certificate: chain, PrivateKey: cert.PrivateKey})
		got, _ := store.Get("id")
		if !cmp.Equal(got.Certificate, inOrder) || !cmp.Equal(got.Leaf.Raw, inOrder[0]) {
			t.Error("the chain is out of order")
		}
		if !cmp.Equal(chain, given) {
			t.Error("the caller's slice was changed")
		}
	}
	permutations(inOrder, try)
	if count != 24 {
		t.Errorf("tried %d orders", count)
	}
	try(slices.Concat(inOrder, inOrder)) // duplicates
	try(slices.Concat(inOrder[2:], inOrder[:3], inOrder[2:]))
}

// A root that was cross-signed by another is there twice, by the same name and with the
// same key: as itself and as an intermediate.
func TestChainWithCrossSignedRoot(t *testing.T) {
	old, root := newRoot(t, "old root"), newRoot(t, "root")
	template := *root.cert
	template.SerialNumber = nextSerial()
	crossed, err := x509.CreateCertificate(rand.Reader, &template, old.cert, root.key.Public(), old.key)
	if err != nil {
		t.Fatal(err)
	}
	cert := newAuthority(t, "intermediate", root).leaf(t, names("a.test"))
	permutations(append(slices.Clone(cert.Certificate), crossed, root.cert.Raw), func(chain [][]byte) {
		var store keyturn.Store
		put(t, &store, "id", tls.Certificate{Certificate: chain, PrivateKey: cert.PrivateKey})
		got, _ := store.Get("id")
		for i := range len(got.Certificate) - 1 {
			if err := parse(t, got.Certificate[i]).CheckSignatureFrom(parse(t, got.Certificate[i+1])); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestChainTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newRoot(t, "root")
		intermediate := newAuthority(t, "intermediate", root)
		var store keyturn.Store

		// The authorities end after 24 hours, the leaf does not.
		long := validity(-time.Hour, 48*time.Hour)
		under := intermediate.leaf(t, names("a.test"), long)
		direct := root.leaf(t, names("b.test"), long)
		direct.Certificate = append(direct.Certificate, root.cert.Raw)
		put(t, &store, "id", under)
		put(t, &store, "id", direct)
		time.Sleep(25 * time.Hour)
		if err := store.Put("id", under); !errors.Is(err, keyturn.ErrExpired) {
			t.Errorf("Put with an expired intermediate = %v", err)
		}
		if err := store.Put("id", direct); err != nil {
			t.Errorf("Put with an expired root = %v", err)
		}
	})
}
