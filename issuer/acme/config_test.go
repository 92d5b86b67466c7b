// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

func TestConfig(t *testing.T) {
	account, err := acme.NewAccount()
	if err != nil {
		t.Fatal(err)
	}
	good := acme.Config{Name: "ca", Directory: "https://ca.example/dir", Account: account, Solve: solveNothing}
	for _, test := range []struct {
		title  string
		change func(*acme.Config)
		says   string
	}{
		{"http", func(c *acme.Config) { c.Directory = "http://ca.example/dir" }, "is no https URL"},
		{"no URL", func(c *acme.Config) { c.Directory = "letsencrypt" }, "is no https URL"},
		{"nothing", func(c *acme.Config) { c.Directory = "" }, "is no https URL"},
		{"a password", func(c *acme.Config) { c.Directory = "https://user:secret@ca.example/dir" }, "a user or a fragment"},
		{"a fragment", func(c *acme.Config) { c.Directory += "#x" }, "a user or a fragment"},
		{"no account", func(c *acme.Config) { c.Account = nil }, "no account"},
		{"no key", func(c *acme.Config) { c.Account = &acme.Account{} }, "no key"},
		{"a key that CAs do not take", func(c *acme.Config) { c.Account = &acme.Account{Key: newKey(t, issuer.Ed25519)} }, "neither ECDSA"},
		{"no solver", func(c *acme.Config) { c.Solve = nil }, "who answers"},
		{"unknown challenge", func(c *acme.Config) { c.Challenge = "dns-02" }, `"dns-02" is no challenge`},
		{"a binding's key", func(c *acme.Config) { c.EAB = &acme.EAB{KeyID: "k", HMACKey: "secret!"} }, "not base64url"},
		{"a binding's name", func(c *acme.Config) { c.EAB = &acme.EAB{HMACKey: "c2VjcmV0"} }, "no key ID"},
	} {
		t.Run(test.title, func(t *testing.T) {
			c := good
			test.change(&c)
			if _, err := acme.New(c); err == nil || !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%v; want %q", err, test.says)
			}
		})
	}
	if _, err := acme.New(good); err != nil {
		t.Error(err)
	}
	if text := fmt.Sprintf("%v %+v", acme.EAB{KeyID: "k", HMACKey: "c2VjcmV0"}, &acme.Config{EAB: &acme.EAB{HMACKey: "c2VjcmV0"}}); strings.Contains(text, "c2Vj") {
		t.Errorf("it prints as %s", text)
	}
}

func TestPresets(t *testing.T) {
	for name, p := range acme.Presets {
		for _, address := range []string{p.Directory, p.Terms} {
			if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Host == "" {
				t.Errorf("%s: %q: %v", name, address, err)
			}
		}
		for _, r := range []acme.Rate{p.Limits.Orders, p.Limits.Domain, p.Limits.Set, p.Limits.Failures} {
			if (r.Count > 0) != (r.Per > 0) {
				t.Errorf("%s: half a rate, %+v", name, r)
			}
		}
	}
}

// TestProfiles asks for kinds of certificates that the CA offers, and for others.
func TestProfiles(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{Profiles: map[string]time.Duration{"shortlived": 6 * 24 * time.Hour, "classic": 90 * 24 * time.Hour}})
	ca := open(t, pebble, func(c *acme.Config) { c.Profile = "classic" })
	for profile, days := range map[string]float64{"": 90, "shortlived": 6, "classic": 90} {
		leaf := order(t, pebble, ca, issuer.OrderRequest{Profile: profile}, "www.example.com")
		if got := leaf.NotAfter.Sub(leaf.NotBefore).Hours() / 24; got < days-1 || got > days+1 {
			t.Errorf("profile %q: %.1f days, want %.0f", profile, got, days)
		}
	}
	_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com"), Profile: "tlsserver"})
	if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), `pebble has no profile "tlsserver"; it has classic, shortlived`) {
		t.Error(err)
	}
	f := before(t, pebble)
	f.set(pathDirectory, changes(func(_ http.Header, d map[string]any) { delete(d["meta"].(map[string]any), "profiles") }))
	none := open(t, pebble)
	_, err = none.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com"), Profile: "tlsserver"})
	if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), "but pebble has none: leave it out") {
		t.Error(err)
	}
}

// TestLifetime is sent only where the configuration says so.
func TestLifetime(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	for ask, want := range map[bool]time.Duration{true: 5 * time.Hour, false: 90 * 24 * time.Hour} {
		leaf := order(t, pebble, open(t, pebble, func(c *acme.Config) { c.AskLifetime = ask }), issuer.OrderRequest{Lifetime: 5 * time.Hour}, "www.example.com")
		if got := time.Until(leaf.NotAfter); (got - want).Abs() > time.Minute {
			t.Errorf("asked %v: %s, want %s", ask, got, want)
		}
	}
}

// TestChallengeOfTheOrder counts for all of its names.
func TestChallengeOfTheOrder(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	ca := open(t, pebble)
	_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "*.example.com"), Challenge: solver.HTTP01})
	if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), "pebble does not take http-01 for *.example.com; it takes dns-01") {
		t.Error(err)
	}
	_, err = ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "127.0.0.1"), Challenge: solver.DNS01})
	if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), "it takes http-01, tls-alpn-01: choose among them") {
		t.Error(err)
	}
	if _, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com"), Challenge: "dns-02"}); !errors.Is(err, issuer.ErrRefused) {
		t.Error(err)
	}
}

// TestCancel ends an order while the CA is at work, and takes the answers away.
func TestCancel(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	ctx, cancel := context.WithCancel(t.Context())
	f.set(pathChallenge, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		cancel()
		hangs(w, r, next)
	})
	_, err := open(t, pebble).Order(ctx, issuer.OrderRequest{CSR: request(t, "www.example.com")})
	if !errors.Is(err, context.Canceled) || errors.Is(err, issuer.ErrRefused) {
		t.Error(err)
	}
	if left := pebble.DNS.TXTs("_acme-challenge.www.example.com"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
