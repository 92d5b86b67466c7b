// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/issuer"
)

func TestKeyTypes(t *testing.T) {
	if issuer.KeyTypes()[0] != issuer.ECDSAP256 {
		t.Error("the default is not the first")
	}
	for _, kt := range append(issuer.KeyTypes(), "") {
		t.Run(kt.String(), func(t *testing.T) {
			parsed, err := issuer.ParseKeyType(string(kt))
			if err != nil || parsed.String() != kt.String() {
				t.Errorf("parsed as %q, %v", parsed, err)
			}
			key, err := kt.Generate()
			if err != nil {
				t.Fatal(err)
			}
			var is string
			switch k := key.Public().(type) {
			case *ecdsa.PublicKey:
				is = "ecdsa-" + strings.ToLower(strings.ReplaceAll(k.Curve.Params().Name, "-", ""))
			case *rsa.PublicKey:
				is = fmt.Sprintf("rsa-%d", k.N.BitLen())
			case ed25519.PublicKey:
				is = "ed25519"
			}
			if is != kt.String() {
				t.Errorf("made a key of type %s", is)
			}
			if of := issuer.KeyTypeOf(key.Public()); of.String() != is {
				t.Errorf("the type of its key is %s", of)
			}
		})
	}
}

func TestUnknownKeyTypes(t *testing.T) {
	for _, s := range []string{"rsa", "RSA-2048", "ecdsa-p256 ", "dsa"} {
		_, err := issuer.ParseKeyType(s)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", s)) || !strings.Contains(err.Error(), "ecdsa-p256, ecdsa-p384, rsa-2048, rsa-4096, ed25519") {
			t.Errorf("%q: %v", s, err)
		}
		if _, err := issuer.KeyType(s).Generate(); err == nil {
			t.Errorf("made a key of type %q", s)
		}
	}
}

func TestKeyTypeInJSON(t *testing.T) {
	b, err := json.Marshal([]issuer.KeyType{"", issuer.RSA2048})
	if err != nil || string(b) != `["ecdsa-p256","rsa-2048"]` {
		t.Fatal(string(b), err)
	}
	var got []issuer.KeyType
	if err := json.Unmarshal(b, &got); err != nil || !slices.Equal(got, []issuer.KeyType{issuer.ECDSAP256, issuer.RSA2048}) {
		t.Fatal(got, err)
	}
	if err := json.Unmarshal([]byte(`["rsa-1"]`), &got); err == nil {
		t.Fatal("read rsa-1")
	}
}

func TestNewRequest(t *testing.T) {
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(key, []string{"www.example.com", "10.0.0.1", "*.example.org", "2001:db8::1", "spiffe://example.org/ns/prod/Web_1.0-a", "::ffff:10.0.0.2"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(csr.DNSNames, csr.IPAddresses, csr.URIs); got != "[www.example.com *.example.org] [10.0.0.1 2001:db8::1 10.0.0.2] [spiffe://example.org/ns/prod/Web_1.0-a]" {
		t.Error(got)
	}
	if len(csr.Subject.Names) != 0 {
		t.Errorf("it has the subject %s", csr.Subject)
	}
	if err := csr.CheckSignature(); err != nil {
		t.Error(err)
	}
	for says, names := range map[string][]string{
		"no names":       nil,
		"name is empty":  {"a.example", ""},
		"has a zone":     {"fe80::1%eth0"},
		"cannot be enco": {"bücher.example"},
	} {
		if _, err := issuer.NewRequest(key, names); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want %q", names, err, says)
		}
	}
}

// TestURIs makes requests for URIs as they are written, or none.
func TestURIs(t *testing.T) {
	key := newKey(t)
	for _, name := range []string{
		"spiffe://example.org", "spiffe://td_1.example-2/a", "https://example.org:8443/a?b=c#d", "urn-x://[2001:db8::1]/a%20b",
		"spiffe://example.org/" + strings.Repeat("a", 2048-len("spiffe://example.org/")),
	} {
		csr, err := issuer.NewRequest(key, []string{name})
		if err != nil || len(csr.URIs) != 1 || csr.URIs[0].String() != name || len(csr.DNSNames) != 0 {
			t.Errorf("%.60s: %v", name, err)
		}
	}
	for _, name := range []string{
		"://", "://a", "a://", "spiffe://", "spiffe:///a", "http://:80/", "http://a b/", "http://bücher.example/", "HTTP://a/", "http://a/\x00", "http://a/ü",
		"SPIFFE://example.org/a", "spiffe://Example.org/a", "spiffe://example.org/", "spiffe://example.org//a", "spiffe://example.org/a/", "spiffe://example.org/./a",
		"spiffe://example.org/..", "spiffe://example.org/a%20b", "spiffe://example.org/a?b", "spiffe://example.org/a?", "spiffe://example.org/a#b", "spiffe://u@example.org/a",
		"spiffe://example.org:1/a", "spiffe://[::1]/a", "spiffe://example.org/a*", "spiffe://example.org/a\nb",
		"spiffe://example.org/" + strings.Repeat("a", 2048), "spiffe://" + strings.Repeat("a", 256) + "/a",
	} {
		if _, err := issuer.NewRequest(key, []string{"a.example", name}); err == nil || !strings.Contains(err.Error(), "making a certificate request: the name ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.60q: %v", name, err)
		}
	}
	if _, err := issuer.NewRequest(key, []string{"https://example.org/", "spiffe://example.org/a"}); err == nil || !strings.Contains(err.Error(), "2 URIs are given") {
		t.Error(err)
	}
	if _, err := issuer.NewRequest(key, []string{"https://example.org/", "https://example.org/a"}); err != nil {
		t.Error(err)
	}
}
