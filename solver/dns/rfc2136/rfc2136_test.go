// SPDX-License-Identifier: Apache-2.0

package rfc2136_test

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/nameserver"
	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/rfc2136"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "_acme-challenge.www.example.test"

func config(s *nameserver.Server) rfc2136.Config {
	return rfc2136.Config{Server: s.Addr(), KeyName: s.KeyName, KeySecret: dns.Secret(s.KeySecret), KeyAlgorithm: s.KeyAlgorithm}
}

func TestUpdates(t *testing.T) {
	for _, algorithm := range []string{"hmac-sha256", "hmac-sha512"} {
		s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}, Algorithm: algorithm})
		p, err := rfc2136.New(config(s))
		if err != nil {
			t.Fatal(err)
		}
		has := func(want ...string) {
			t.Helper()
			got, err := resolve.New([]string{s.Addr()}).TXT(t.Context(), name)
			if slices.Sort(got); err != nil || !slices.Equal(got, want) {
				t.Fatalf("the zone has %q, %v; want %q", got, err, want)
			}
		}
		one := dns.Record{Name: name, Value: "one", Zone: "example.test"}
		two := dns.Record{Name: name, Value: "two", Zone: "example.test"}
		if err := p.Present(t.Context(), one); err != nil {
			t.Fatal(err)
		}
		has("one")
		for range 2 { // a record that is there is no error
			if err := p.Present(t.Context(), two); err != nil {
				t.Fatal(err)
			}
			has("one", "two")
		}
		for range 2 { // nor is one that is not there
			if err := p.CleanUp(t.Context(), one); err != nil {
				t.Fatal(err)
			}
			has("two")
		}
	}
}

func TestSolver(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}})
	p, err := rfc2136.New(config(s))
	if err != nil {
		t.Fatal(err)
	}
	solve := dns.New(dns.Config{Provider: p, Resolver: resolve.New([]string{s.Addr()}).WithAuthoritativePort(s.Port())})
	done, err := solve.Solve(t.Context(), solver.Challenge{Type: solver.DNS01, Name: "www.example.test", KeyAuthorization: "key"})
	if err != nil {
		t.Fatal(err)
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}})
	other := dns.Secret(base64.StdEncoding.EncodeToString(make([]byte, 32)))
	r := dns.Record{Name: name, Value: "one", Zone: "example.test"}
	for want, change := range map[string]func(*rfc2136.Config, *dns.Record){
		"name, secret and algorithm":     func(c *rfc2136.Config, _ *dns.Record) { c.KeySecret = other },
		"does not know the key":          func(c *rfc2136.Config, _ *dns.Record) { c.KeyName = "other" },
		"not the primary":                func(_ *rfc2136.Config, r *dns.Record) { r.Name, r.Zone = "www.other.test", "other.test" },
		"not in the zone":                func(c *rfc2136.Config, _ *dns.Record) { c.Zone = "other.test" },
		"give the setting zone":          func(_ *rfc2136.Config, r *dns.Record) { r.Zone = "" },
		"connection refused":             func(c *rfc2136.Config, _ *dns.Record) { c.Server = "127.0.0.1:1" },
		"updating the zone example.test": func(c *rfc2136.Config, _ *dns.Record) { c.Server = "127.0.0.1:1" },
	} {
		c, r := config(s), r
		change(&c, &r)
		p, err := rfc2136.New(c)
		if err != nil {
			t.Fatal(err)
		}
		err = p.Present(t.Context(), r)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), string(c.KeySecret)) {
			t.Errorf("want %q: %v", want, err)
		}
	}
}

func TestSettings(t *testing.T) {
	good := rfc2136.Config{Server: "ns:53", KeyName: "k", KeySecret: dns.Secret(base64.StdEncoding.EncodeToString(make([]byte, 32)))}
	if _, err := rfc2136.New(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*rfc2136.Config){
		"server":        func(c *rfc2136.Config) { c.Server = "ns" },
		"key_name":      func(c *rfc2136.Config) { c.KeyName = "" },
		"key_secret":    func(c *rfc2136.Config) { c.KeySecret = "not base64" },
		"at least 16":   func(c *rfc2136.Config) { c.KeySecret = "c2hvcnQ=" },
		"key_algorithm": func(c *rfc2136.Config) { c.KeyAlgorithm = "hmac-md5" },
		"zone":          func(c *rfc2136.Config) { c.Zone = "a..b" },
		"ttl":           func(c *rfc2136.Config) { c.TTL = -1 },
	} {
		c := good
		change(&c)
		if _, err := rfc2136.New(c); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "not base64") {
			t.Errorf("want %q: %v", want, err)
		}
	}
}
