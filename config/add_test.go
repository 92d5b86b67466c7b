// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/issuer/policy"
)

func TestAddIssuer(t *testing.T) {
	local := config.Issuer{Type: "local", Local: &config.LocalCA{Name: "Example", Permitted: policy.Names{DNS: []string{"example.com"}}}}
	for title, test := range map[string]struct{ in, want string }{
		"nothing": {"", "default_issuer: in\nissuers:\n  in:"},
		"comments": {
			"# who may\nissuers: # all of them\n  # the old one\n  old: {type: local} # good\n",
			"# who may\nissuers: # all of them\n  # the old one\n  old: {type: local} # good\n  in:\n    type: local\n    name: Example\n    permitted:\n      dns:\n      - example.com\ndefault_issuer: old\n",
		},
		"default": {"default_issuer: old\nissuers:\n  old: {type: local}\n  le:\n    type: acme\n    directory: letsencrypt\n    terms_agreed: true\n", "terms_agreed: true\n  in:\n"},
		"number":  {"issuers: {42: {type: local}}\n", "default_issuer: '42'"},
		"first":   {"issuers: {a: {type: local}, b: {type: local}}\ndefaults: {issuers: [b, a]}\n", "default_issuer: b"},
	} {
		t.Run(title, func(t *testing.T) {
			got, err := config.AddIssuer([]byte(test.in), "in", local)
			if err != nil {
				t.Fatal(err)
			}
			text := string(got)
			if !strings.Contains(text, test.want) {
				t.Errorf("there is no %q in\n%s", test.want, text)
			}
			after, err := config.ParseShared(got)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(local, after.Issuers["in"]); diff != "" {
				t.Error(diff)
			}
			if test.in == "" {
				return
			}
			before, err := config.ParseShared([]byte(test.in))
			if err != nil {
				t.Fatal(err)
			}
			delete(after.Issuers, "in")
			if diff := cmp.Diff(before, after, renewBefores); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAddIssuerRefuses(t *testing.T) {
	local := config.Issuer{Type: "local", Local: &config.LocalCA{}}
	if _, err := config.AddIssuer([]byte("issuers: {in: {type: local}}"), "in", local); !errors.Is(err, config.ErrExists) {
		t.Error(err)
	}
	for want, in := range map[string]string{"unknown key": "isuers: {}", "here must be keys with values": "[]"} {
		if _, err := config.AddIssuer([]byte(in), "in", local); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %s", err, want)
		}
	}
	bad := config.Issuer{Type: "local", Local: &config.LocalCA{Permitted: policy.Names{DNS: []string{"*"}}}}
	for _, in := range []string{"", "issuers: {a: {type: local}}"} {
		if _, err := config.AddIssuer([]byte(in), "in", bad); err == nil || !strings.Contains(err.Error(), "issuers.in.permitted") {
			t.Error(err)
		}
	}
	if _, err := config.AddIssuer([]byte("issuers: {a: {type: local}}"), "IN", local); err == nil || !strings.Contains(err.Error(), "an issuer's name has") {
		t.Error(err)
	}
}
