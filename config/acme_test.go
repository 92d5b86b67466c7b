// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer"
)

// block writes PEM.
func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// newKey returns a private key as PKCS #8.
func newKey(t testing.TB, kind issuer.KeyType) (crypto.Signer, string) {
	t.Helper()
	key, err := kind.Generate()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, block("PRIVATE KEY", der)
}

func newCertificate(t testing.TB) string {
	t.Helper()
	key, _ := newKey(t, issuer.ECDSAP256)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

// indented writes text as the value of a key, by so many spaces.
func indented(text string, by int) string {
	space := "\n" + strings.Repeat(" ", by)
	return "|" + space + strings.ReplaceAll(strings.TrimSpace(text), "\n", space) + "\n"
}

func TestParseACME(t *testing.T) {
	_, key := newKey(t, issuer.ECDSAP256)
	root := newCertificate(t)
	text := `issuers:
  own:
    type: acme
    directory: https://ca.example.com/directory
    terms_agreed: true
    contact: [ops@example.com, mailto:ops2@example.com]
    profile: shortlived
    preferred_chain: "Example Root"
    challenge: tls-alpn-01
    eab:
      key_id: "7"
      hmac_key: c2VjcmV0LWhtYWM=
    skip_caa: true
    limits:
      orders: 300/3h
      domain: 50/7d
      set: 5/168h
    roots: ` + indented(root+root, 6) + "    account_key: " + indented(key, 6) + `  le:
    type: acme
    directory: letsencrypt
    terms_agreed: true
    contact: ops@example.com
    limits: {}
resolvers: [192.0.2.1, "192.0.2.2:5353", 2001:db8::1, "[2001:db8::2]:53", ns.example.com]
defaults:
  issuers: [le, own]
  fallback_after: 5
`
	want := &config.Shared{
		DefaultIssuer: "le",
		Issuers: map[string]config.Issuer{
			"own": {Type: "acme", ACME: &config.ACME{
				Directory: "https://ca.example.com/directory", TermsAgreed: true, Contact: []string{"ops@example.com", "ops2@example.com"},
				Roots: root + root, Profile: "shortlived", PreferredChain: "Example Root", Challenge: "tls-alpn-01",
				EAB: &config.EAB{KeyID: "7", HMACKey: "c2VjcmV0LWhtYWM"}, AccountKey: key, SkipCAA: true,
				Limits: &config.Limits{
					Orders: config.Rate{Count: 300, Per: 3 * time.Hour},
					Domain: config.Rate{Count: 50, Per: 7 * day}, Set: config.Rate{Count: 5, Per: 7 * day},
				},
			}},
			"le": {Type: "acme", ACME: &config.ACME{
				Directory: "letsencrypt", TermsAgreed: true, Contact: []string{"ops@example.com"}, Limits: &config.Limits{},
			}},
		},
		Resolvers: []string{"192.0.2.1:53", "192.0.2.2:5353", "[2001:db8::1]:53", "[2001:db8::2]:53", "ns.example.com:53"},
		Defaults:  config.Defaults{Issuers: []string{"le", "own"}, FallbackAfter: 5},
	}
	got, err := config.ParseShared([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, renewBefores); diff != "" {
		t.Fatal(diff)
	}
	out, err := got.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.ParseShared(out)
	if err != nil || cmp.Diff(want, again, renewBefores) != "" {
		t.Fatalf("%v in\n%s%s", err, out, cmp.Diff(want, again, renewBefores))
	}
}

func TestParseACMERefuses(t *testing.T) {
	const (
		head = "issuers:\n  le:\n    type: acme\n"
		good = head + "    directory: https://ca.example.com/dir\n"
	)
	for in, want := range map[string]string{
		head: "line 3: issuers.le.directory: it is missing: one of letsencrypt, letsencrypt-staging, zerossl, google, or the https URL",
		head + "    directory: letsencript\n    terms_agreed: true\n":                  `line 4: issuers.le.directory: "letsencript" is not a CA that is known by name; known are letsencrypt,`,
		head + "    directory: ''\n":                                                   "line 4: issuers.le.directory: \"\" is not a CA",
		head + "    directory: http://ca.example.com/dir\n":                            "line 4: issuers.le.directory: the URL does not start with https://",
		head + "    directory: https://a:hunter2@ca.example.com\n":                     "line 4: issuers.le.directory: the URL holds a user or a password",
		head + "    directory: 'https://'\n":                                           "line 4: issuers.le.directory: it is not the https URL",
		head + "    directory: ca.example.com:443\n":                                   "line 4: issuers.le.directory: it is not the https URL",
		head + "    directory: letsencrypt\n":                                          "issuers.le.terms_agreed: letsencrypt has terms of service",
		head + "    directory: google\n    terms_agreed: true\n":                       "issuers.le.eab: google takes an account only with an external binding",
		good + "    terms_agreed: yes\n":                                               "line 5: issuers.le.terms_agreed: here must be true or false, not a text",
		good + "    skip_caa: 1\n":                                                     "line 5: issuers.le.skip_caa: here must be true or false, not a number",
		good + "    contact: ops\n":                                                    `line 5: issuers.le.contact: "ops" is not a mail address`,
		good + "    contact:\n    - a@example.com\n    - B <b@example.com>\n":          `line 7: issuers.le.contact[1]: "B <b@example.com>" is not a mail`,
		good + "    contact:\n    - a@example.com\n    - mailto:a@example.com":         `line 7: issuers.le.contact[1]: "a@example.com" is here twice`,
		good + "    contact: {a: b}\n":                                                 "line 5: issuers.le.contact: here must be one value, not keys",
		good + "    contact: [[a]]\n":                                                  "line 5: issuers.le.contact[0]: here must be one value, not a list",
		good + "    contact: 'a@example.com?subject=x'\n":                              "is not a mail address",
		good + "    challenge: dns\n":                                                  `line 5: issuers.le.challenge: "dns" is not a type of challenge; known are http-01, tls-alpn-01, dns-01`,
		good + "    profile: ''\n":                                                     "line 5: issuers.le.profile: it is empty",
		good + "    profile: 5\n":                                                      "line 5: issuers.le.profile: here must be text",
		good + "    eab: hunter2\n":                                                    "line 5: issuers.le.eab: here must be keys with values, not a text",
		good + "    eab: {key_id: a}\n":                                                "issuers.le.eab.hmac_key: it is missing",
		good + "    eab: {hmac_key: aHVudGVyMg}\n":                                     "issuers.le.eab.key_id: it is missing",
		good + "    eab: {key_id: a, hmac_key: 'hunter2 hunter2'}\n":                   "issuers.le.eab.hmac_key: it is not base64url",
		good + "    eab: {key_id: a, hmac_key: ''}\n":                                  "issuers.le.eab.hmac_key: it is not base64url",
		good + "    eab: {key_id: a, hmac_key: aHVudGVyMg, alg: x}\n":                  "issuers.le.eab.alg: unknown key",
		good + "    limits: {order: 1/h}\n":                                            "issuers.le.limits.order: unknown key; known here are orders, domain, set, failures",
		good + "    limits: {orders: 300}\n":                                           `issuers.le.limits.orders: "300" is not a rate`,
		good + "    limits: {orders: 0/1h}\n":                                          `issuers.le.limits.orders: "0/1h" is not a rate`,
		good + "    limits: {orders: 5/-1h}\n":                                         `issuers.le.limits.orders: "5/-1h" is not a rate`,
		good + "    limits: {orders: 5/h}\n":                                           `issuers.le.limits.orders: "5/h" is not a rate`,
		good + "    name: x\n":                                                         "line 5: issuers.le.name: unknown key; known here are type, directory",
		good + "    roots: hunter2\n":                                                  "line 5: issuers.le.roots: it is not PEM",
		good + "    account_key: hunter2\n":                                            "line 5: issuers.le.account_key: it is not PEM",
		good + "resolvers: ['192.0.2.1:0']\n":                                          `line 5: resolvers[0]: "192.0.2.1:0" has no port`,
		good + "resolvers: ['192.0.2.1:dns']\n":                                        "has no port from 1 to 65535",
		good + "resolvers: [a b]\n":                                                    `line 5: resolvers[0]: "a b" is not a name server`,
		good + "resolvers: ['*.example.com']\n":                                        "is not a name server",
		good + "resolvers: [192.0.2.1, '192.0.2.1:53']\n":                              `line 5: resolvers[1]: "192.0.2.1:53" is here twice`,
		good + "defaults: {issuers: [le, lo]}\n":                                       `line 5: defaults.issuers[1]: there is no issuer "lo"; the issuers are le`,
		good + "defaults: {issuers: [le, le]}\n":                                       `defaults.issuers[1]: "le" is here twice`,
		good + "defaults: {fallback_after: 0}\n":                                       `defaults.fallback_after: "0" is not a whole number from 1 to 100`,
		good + "  b: {type: local}\ndefault_issuer: b\ndefaults: {issuers: [le, b]}\n": "line 6: default_issuer: it is not le, the first of defaults.issuers",
	} {
		got, err := config.ParseShared([]byte(in))
		var one *config.Error
		if got != nil || !errors.As(err, &one) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s:\n got %v\nwant %s", in, err, want)
		}
	}
}

// TestAccountKey: what can sign for an account, and no word of what cannot.
func TestAccountKey(t *testing.T) {
	sec1, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalECPrivateKey(sec1)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, text := newKey(t, issuer.ECDSAP256)
	for name, good := range map[string]struct {
		text string
		key  crypto.Signer
	}{
		"PKCS #8": {text, p256},
		"SEC 1":   {block("EC PRIVATE KEY", ec), sec1},
		"PKCS #1": {block("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(pkcs1)), pkcs1},
	} {
		key, err := config.ParseAccountKey(good.text)
		if err != nil || !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(good.key.Public()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, ed := newKey(t, issuer.Ed25519)
	for want, bad := range map[string]string{
		"not PEM":                 "hunter2",
		"something follows":       text + text,
		"neither an ECDSA nor":    ed,
		`type "CERTIFICATE", not`: newCertificate(t),
		"can be read":             block("PRIVATE KEY", []byte("hunter2")),
		"is encrypted":            block("ENCRYPTED PRIVATE KEY", []byte("hunter2")),
	} {
		if _, err := config.ParseAccountKey(bad); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

func TestRootsAreCertificates(t *testing.T) {
	root := newCertificate(t)
	_, key := newKey(t, issuer.ECDSAP256)
	for want, pem := range map[string]string{
		`type "PRIVATE KEY": certificates alone`: root + key,
		"what follows certificate 1":             root + "hunter2",
		"certificate 2 cannot be read":           root + block("CERTIFICATE", []byte("x")),
	} {
		_, err := config.ParseShared([]byte("issuers:\n  a:\n    type: acme\n    directory: https://ca.example.com\n    roots: " + indented(pem, 6)))
		if err == nil || !strings.Contains(err.Error(), "line 5: issuers.a.roots: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v; want %s", err, want)
		}
	}
}

// TestPresetsWithAnAccount: an account that was made elsewhere is bound already.
func TestPresetsWithAnAccount(t *testing.T) {
	_, key := newKey(t, issuer.ECDSAP256)
	for _, name := range config.Directories() {
		text := "issuers:\n  a:\n    type: acme\n    terms_agreed: true\n    directory: " + name + "\n    account_key: " + indented(key, 6)
		if _, err := config.ParseShared([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
