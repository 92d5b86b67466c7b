// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/policy"
)

var renewBefores = cmp.Comparer(func(a, b config.RenewBefore) bool { return a == b })

func TestParseShared(t *testing.T) {
	third, err := config.ParseRenewBefore("33%")
	if err != nil {
		t.Fatal(err)
	}
	for title, test := range map[string]struct {
		in   string
		want config.Shared
	}{
		"least": {
			"issuers: {dev: {type: local}}",
			config.Shared{DefaultIssuer: "dev", Issuers: map[string]config.Issuer{"dev": {Type: "local", Local: &config.LocalCA{}}}},
		},
		"most": {
			`# all of it
default_issuer: internal
issuers:
  internal:
    type: local
    name: "Example GmbH"
    key: rsa-2048
    lifetime: 30d
    max_lifetime: 2160h
    root_lifetime: 3650d
    intermediate_lifetime: 1825d
    backdate: 5m
    permitted: {dns: [internal.example, example.net], ip: 10.0.0.0/8}
    excluded: {uri: .evil.example}
    policy: {dns: [.internal.example], uri: ["spiffe://example.net/*"], groups: [web, api], usages: server}
    crl_url: http://crl.example/ca.crl
    crl_lifetime: 2d
  42:
    type: local
defaults:
  key: ed25519
  lifetime: 90m
  renew_before: 33%
`,
			config.Shared{
				DefaultIssuer: "internal",
				Issuers: map[string]config.Issuer{
					"internal": {Type: "local", Local: &config.LocalCA{
						Name: "Example GmbH", Key: issuer.RSA2048,
						Lifetime: config.Duration(30 * day), MaxLifetime: config.Duration(90 * day),
						RootLifetime: config.Duration(3650 * day), IntermediateLifetime: config.Duration(1825 * day),
						Backdate:  config.Duration(5 * time.Minute),
						Permitted: policy.Names{DNS: []string{"internal.example", "example.net"}, IP: []string{"10.0.0.0/8"}},
						Excluded:  policy.Names{URI: []string{".evil.example"}},
						Policy: config.CAPolicy{
							Names:  policy.Names{DNS: []string{".internal.example"}, URI: []string{"spiffe://example.net/*"}},
							Groups: []string{"web", "api"}, Usages: []string{"server"},
						},
						CRLURL: "http://crl.example/ca.crl", CRLLifetime: config.Duration(2 * day),
					}},
					"42": {Type: "local", Local: &config.LocalCA{}},
				},
				Defaults: config.Defaults{Key: issuer.Ed25519, Lifetime: config.Duration(90 * time.Minute), RenewBefore: third},
			},
		},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := config.ParseShared([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&test.want, got, renewBefores); diff != "" {
				t.Fatal(diff)
			}
			text, err := got.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := config.ParseShared(text)
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			if diff := cmp.Diff(got, again, renewBefores); diff != "" {
				t.Fatalf("%s in\n%s", diff, text)
			}
		})
	}
}

func TestParseSharedRefuses(t *testing.T) {
	const good = "issuers: {dev: {type: local}}\n"
	for in, want := range map[string]string{
		"":                                       "issuers: at least one issuer is needed",
		"# nothing\n":                            "issuers: at least one issuer is needed",
		"---\n":                                  "issuers: at least one issuer is needed",
		"null":                                   "issuers: at least one issuer is needed",
		"issuers: {}\n":                          "issuers: at least one issuer is needed",
		"hello":                                  "line 1: here must be keys with values, not a text",
		"- a":                                    "line 1: here must be keys with values, not a list",
		"12":                                     "line 1: here must be keys with values, not a number",
		"issuers: local":                         "line 1: issuers: here must be keys with values, not a text",
		"issuers: [local]":                       "line 1: issuers: here must be keys with values, not a list",
		good + "isuers: {}":                      "line 2: isuers: unknown key; known here are default_issuer, issuers, solvers, zones, resolvers, defaults",
		good + "a b: 1":                          `line 2: "a b": unknown key`,
		good + good:                              "line 2: issuers: the key is here twice; the first is on line 1",
		good + "default_issuer:":                 "line 2: default_issuer: the key has no value",
		good + "default_issuer: 5":               "line 2: default_issuer: here must be text, not a number; quotes make it text",
		good + "default_issuer: true":            "line 2: default_issuer: here must be text, not true or false",
		good + "default_issuer: 2026-11-22":      "line 2: default_issuer: here must be text, not a date",
		good + "default_issuer: [dev]":           "line 2: default_issuer: here must be one value, not a list",
		good + "default_issuer: {a: b}":          "line 2: default_issuer: here must be one value, not keys with values",
		good + "default_issuer: prod":            "line 2: default_issuer: there is no issuer of this name; the issuers are dev",
		good + "default_issuer: ''":              "line 2: default_issuer: there is no issuer of this name",
		good + "defaults: 5":                     "line 2: defaults: here must be keys with values, not a number",
		good + "defaults:\n  lifetme: 5d":        "line 3: defaults.lifetme: unknown key; known here are key, lifetime, renew_before",
		good + "defaults:\n  lifetime: 5":        `line 3: defaults.lifetime: "5" is not a duration`,
		good + "defaults:\n  lifetime: 0s":       "line 3: defaults.lifetime: \"0s\" is less than a second",
		good + "defaults:\n  lifetime: -5d":      "line 3: defaults.lifetime:",
		good + "defaults:\n  lifetime: ''":       "line 3: defaults.lifetime: a duration is missing",
		good + "defaults:\n  key: dsa":           `line 3: defaults.key: unknown key type "dsa": use one of ecdsa-p256`,
		good + "defaults:\n  renew_before: 100%": "line 3: defaults.renew_before:",
		good + "defaults:\n  lifetime: 30d\n  renew_before: 30d": "line 4: defaults.renew_before: 30d is not shorter than the lifetime, 30d",
		"issuers:\n  a: {type: local}\n  b: {type: local}":       "line 1: default_issuer: there is more than one issuer: name one of a, b",
		"issuers:\n  dev: {}":                                                           "line 2: issuers.dev: the issuer has no type; known are acme, awspca, cfssl, local, vault",
		"issuers:\n  dev:":                                                              "line 2: issuers.dev: here must be keys with values, not nothing",
		"issuers:\n  dev: {type: vualt}":                                                `line 2: issuers.dev.type: "vualt" is not a type of issuer; known are acme, awspca, cfssl, local, vault`,
		"issuers:\n  dev: {type: local, type: local}":                                   "line 2: issuers.dev.type: the key is here twice",
		"issuers:\n  dev: {type: local, url: x}":                                        "line 2: issuers.dev.url: unknown key; known here are type, name, key",
		"issuers:\n  Dev: {type: local}":                                                "line 2: issuers.Dev: an issuer's name has 1 to 63 of the characters",
		"issuers:\n  '': {type: local}":                                                 `line 2: issuers[""]: an issuer's name has`,
		"issuers:\n  dev_1: {type: local}":                                              "line 2: issuers.dev_1: an issuer's name has",
		"issuers:\n  \"dev\\n\": {type: local}":                                         `line 2: issuers["dev\n"]: an issuer's name has`,
		"issuers:\n  [a]: {type: local}":                                                "line 2: issuers: a key must be text, not a list",
		"issuers:\n  dev: {type: local, lifetime: 2d, max_lifetime: 1d}":                "issuers.dev.lifetime: 2d is above max_lifetime, which is 1d",
		"issuers:\n  dev: {type: local, root_lifetime: 1d, intermediate_lifetime: 36h}": "issuers.dev.intermediate_lifetime: 36h is above root_lifetime, which is 1d",
		"issuers:\n  dev: {type: local, name: " + strings.Repeat("x", 39) + "}":         "issuers.dev.name: it has 39 characters",
		"issuers:\n  dev: {type: local, permitted: {dns: '*.example.com'}}":             "line 2: issuers.dev.permitted: the permitted names: \"*.example.com\" is not a DNS name",
		"issuers:\n  dev: {type: local, permitted: [a]}":                                "line 2: issuers.dev.permitted: here must be keys with values, not a list",
		"issuers:\n  dev: {type: local, permitted: {name: a}}":                          "line 2: issuers.dev.permitted.name: unknown key; known here are dns, ip, uri",
		"issuers:\n  dev: {type: local, excluded: {ip: 10.0.0.1/8}}":                    "line 2: issuers.dev.excluded: the excluded names: \"10.0.0.1/8\" is an address in a range: write 10.0.0.0/8",
		"issuers:\n  dev: {type: local, policy: {dns: [a, a]}}":                         "\"a\" is here twice",
		"issuers:\n  dev: {type: local, policy: {uri: mailto:a}}":                       "line 2: issuers.dev.policy: \"mailto:a\" is not a URI with a host",
		"issuers:\n  dev: {type: local, policy: {usages: email}}":                       "issuers.dev.policy.usages: \"email\" is not a usage: server and client are known",
		"issuers:\n  dev: {type: local, policy: {groups: Web}}":                         "issuers.dev.policy.groups: \"Web\" is not a name",
		"issuers:\n  dev: {type: local, crl_url: 'ftp://a/b'}":                          "issuers.dev.crl_url: \"ftp://a/b\" is not an address such as http://HOST/ca.crl",
		"issuers: &all\n  dev: {type: local}":                                           "line 1: YAML anchors (&name) are not supported",
		"issuers:\n  a: &a {type: local}\n  b: *a":                                      "line 2: YAML anchors",
		"a: &a [x]\nb: *a":                        "YAML anchors",
		"issuers:\n  dev:\n    <<: {type: local}": "line 3: YAML merge keys",
		"issuers:\n  dev: !local {}":              "line 2: YAML tags (!name) are not supported",
		"issuers:\n  dev: {type: !!str local}":    "line 2: YAML tags",
		good + "---\n" + good:                     "a second YAML document",
		good + "--- [":                            "this is not YAML",
		"issuers: [":                              "this is not YAML",
		"issuers:\n\t- x":                         "line 2: this is not YAML: found character that cannot start any token",
		"a: \xff":                                 "not UTF-8",
		"\xff\xfei\x00":                           "not UTF-8",
		strings.Repeat("[", 1000):                 "this is not YAML",
		strings.Repeat("[", 100) + strings.Repeat("]", 100):  "line 1: mappings and lists lie more than 16 deep",
		strings.Repeat("{a: ", 17) + strings.Repeat("}", 17): "more than 16 deep",
		strings.Repeat("#", config.MaxSize) + "\n":           "at most 245760 are allowed",
	} {
		got, err := config.ParseShared([]byte(in))
		var one *config.Error
		if got != nil || !errors.As(err, &one) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q:\n got %v\nwant %s", in, err, want)
		}
	}
}

func TestAllErrorsAreReportedTogether(t *testing.T) {
	_, err := config.ParseShared([]byte("issuers:\n  dev:\n    type: local\n    lifetime: 1\n    key: x\nfoo: 1\nbar: 2\n"))
	if err == nil {
		t.Fatal("taken")
	}
	for _, want := range []string{"line 4: issuers.dev.lifetime", "line 5: issuers.dev.key", "line 6: foo", "line 7: bar"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	_, err = config.ParseShared([]byte(strings.Repeat("a: 1\n", 10000)))
	if n := strings.Count(err.Error(), "\n"); n != 19 {
		t.Errorf("%d lines of errors", n+1)
	}
}

// TestAliasBombs has documents of a few hundred bytes that would be gigabytes
// if their aliases were followed.
func TestAliasBombs(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 20 {
		from, to := string(rune('a'+i)), string(rune('a'+i+1))
		bomb.WriteString(to + "0: &" + to + "0 [" + strings.Repeat("*"+from+"0,", 10) + "]\n")
	}
	allocated := testing.AllocsPerRun(1, func() {
		if _, err := config.ParseShared([]byte(bomb.String())); err == nil || !strings.Contains(err.Error(), "anchors") {
			t.Error(err)
		}
		if _, err := config.ParseShared([]byte("issuers: &i\n  dev: *i\n")); err == nil { // a loop
			t.Error("taken")
		}
	})
	if allocated > 100_000 {
		t.Errorf("%.0f allocations", allocated)
	}
}

func TestEncodeRefusesWhatParseSharedWould(t *testing.T) {
	for want, s := range map[string]config.Shared{
		"at least one issuer":    {},
		"no issuer of this name": {DefaultIssuer: "x", Issuers: map[string]config.Issuer{"dev": {Type: "local", Local: &config.LocalCA{}}}},
		"has no settings":        {DefaultIssuer: "dev", Issuers: map[string]config.Issuer{"dev": {Type: "local"}}},
		`type "acme" has no`:     {DefaultIssuer: "dev", Issuers: map[string]config.Issuer{"dev": {Type: "acme"}}},
	} {
		if text, err := s.Encode(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, %v; want %s", text, err, want)
		}
	}
}

func FuzzParseShared(f *testing.F) {
	f.Add([]byte("default_issuer: dev\nissuers: {dev: {type: local, lifetime: 30d}}\ndefaults: {key: ed25519, renew_before: 33%}\n"))
	f.Add([]byte("issuers:\n  le: {type: acme, directory: letsencrypt, terms_agreed: true, contact: [mailto:a@example.com], limits: {orders: 300/3h}}\n" +
		"  own: {type: acme, directory: 'https://a.example', eab: {key_id: x, hmac_key: eA==}, challenge: dns-01, skip_caa: true}\n" +
		"solvers: {cf: {type: cloudflare, api_token: x, propagation: 5m, resolvers: ns.example}, own: {type: rfc2136, server: 'a:53', key_name: k, key_secret: eA==, ttl: 60}}\n" +
		"zones: {example.com: [cf, bus], .: own}\nresolvers: [192.0.2.1, '[2001:db8::1]:53']\ndefaults: {issuers: [le, own], fallback_after: 2}\n"))
	f.Add([]byte("issuers: &a\n  b: *a\n"))
	f.Add([]byte("? [a]\n: !x |\n  y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := config.ParseShared(text)
		if err != nil {
			if s != nil {
				t.Error("a configuration beside an error")
			}
			return
		}
		if _, ok := s.Issuers[s.DefaultIssuer]; !ok {
			t.Errorf("the default issuer %q does not exist", s.DefaultIssuer)
		}
		out, err := s.Encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		again, err := config.ParseShared(out)
		if err != nil || cmp.Diff(s, again, renewBefores) != "" {
			t.Fatalf("%v, %s", err, cmp.Diff(s, again, renewBefores))
		}
	})
}
