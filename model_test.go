// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn"
)

// TestStoreLikeModel does anything to a Store and to a list, in any order, and compares
// what they choose.
func TestStoreLikeModel(t *testing.T) {
	root := newRoot(t, "root")
	var certs []tls.Certificate
	for _, sans := range [][]string{{"a.test"}, {"a.test", "b.test"}, {"*.test"}, {"b.test", "*.test"}, {"a.b.test"}, {"*.b.test", "c.test"}} {
		certs = append(certs, root.leaf(t, names(sans...)), root.leafFor(t, newKey(t, x509.RSA), names(sans...)))
	}
	ids := []string{"1", "2", "3", "4"}
	type held struct {
		cert  tls.Certificate
		names []string
		rsa   bool
	}

	rapid.Check(t, func(t *rapid.T) {
		store := new(keyturn.Store)
		model := map[string]held{}
		var order []string // ids as last put
		fallback := ""
		drawCert := func() held {
			cert := rapid.SampledFrom(certs).Draw(t, "cert")
			leaf, err := x509.ParseCertificate(cert.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			return held{cert, leaf.DNSNames, leaf.PublicKeyAlgorithm == x509.RSA}
		}
		put := func(id string) {
			order = append(slices.DeleteFunc(order, func(x string) bool { return x == id }), id)
		}
		expected := func(name string) string {
			_, parent, _ := strings.Cut(name, ".")
			for _, want := range []string{name, "*." + parent} {
				for _, rsa := range []bool{false, true} {
					for _, id := range slices.Backward(order) {
						if h, ok := model[id]; ok && h.rsa == rsa && slices.Contains(h.names, want) {
							return id
						}
					}
				}
			}
			if _, ok := model[fallback]; ok {
				return fallback
			}
			return ""
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				id, h := rapid.SampledFrom(ids).Draw(t, "id"), drawCert()
				if err := store.Put(id, h.cert); err != nil {
					t.Fatal(err)
				}
				model[id] = h
				put(id)
			},
			"put a bad one": func(t *rapid.T) {
				if store.Put(rapid.SampledFrom(ids).Draw(t, "id"), tls.Certificate{}) == nil {
					t.Fatal("it is accepted")
				}
			},
			"remove": func(t *rapid.T) {
				id := rapid.SampledFrom(ids).Draw(t, "id")
				if _, ok := model[id]; store.Remove(id) != ok {
					t.Fatal("Remove does not report truly")
				}
				delete(model, id)
			},
			"default": func(t *rapid.T) {
				fallback = rapid.SampledFrom(append(ids, "")).Draw(t, "id")
				store.SetDefault(fallback)
			},
			"": func(t *rapid.T) {
				if store.Len() != len(model) {
					t.Fatalf("Len = %d, want %d", store.Len(), len(model))
				}
				var all []string
				for id := range store.All() {
					all = append(all, id)
				}
				slices.Sort(all)
				if want := slices.Sorted(maps.Keys(model)); !slices.Equal(all, want) {
					t.Fatalf("All yields %v, want %v", all, want)
				}
				for _, name := range []string{"a.test", "b.test", "c.test", "d.test", "a.b.test", "x.b.test", "x.a.test", "test"} {
					cert, err := store.GetCertificate(hello(name, tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256))
					want := expected(name)
					if (err == nil) != (want != "") {
						t.Fatalf("%s: %v, want %q", name, err, want)
					}
					if got, _ := store.Get(want); err == nil && got != cert {
						t.Fatalf("%s: chose another than that of %q", name, want)
					}
				}
			},
		})
	})
}
