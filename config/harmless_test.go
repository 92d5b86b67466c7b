// SPDX-License-Identifier: Apache-2.0

package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/issuer/policy"
)

// TestShow: only the values of keys that are known are shown.
func TestShow(t *testing.T) {
	for want, path := range map[string][]string{
		"30d":    {"issuers", "internal", "lifetime"},
		"local":  {"issuers", "password", "type"},
		"dev":    {"default_issuer"},
		"300/3h": {"issuers", "le", "limits", "orders"},
		"dns":    {"zones", "example.com"},
		"a, b":   {"defaults", "issuers"},
	} {
		if got := show(path, want); got != want {
			t.Errorf("%v: %s", path, got)
		}
	}
	for _, path := range [][]string{
		{"password"}, {"issuers", "a", "token"}, {"issuers", "a"}, {"issuers", "a", "key", "0"}, {"issuers", "a", "settings", "lifetime"}, {"issuers", "a", "account_key"}, {"issuers", "a", "eab", "hmac_key"}, {"zones"}, {"solvers", "a", "api_token"}, {"solvers", "a", "client_secret"}, {"solvers", "a", "nonesuch"}, {"solvers", "a"}, {"other", "*", "lifetime"}, nil,
	} {
		if got := show(path, "hunter2"); got != Hidden {
			t.Errorf("%v: %s", path, got)
		}
	}
	for _, url := range []string{"https://me:hunter2@example.com", "https://example.com/hook?token=hunter2"} {
		if got := show([]string{"solvers", "a", "url"}, url); got != Hidden {
			t.Error(got)
		}
	}
}

// hidden are the keys of issuers whose values are not shown: secrets, and pages
// of PEM.
var hidden = []string{
	"issuers.*.account_key", "issuers.*.eab.hmac_key", "issuers.*.roots", "issuers.*.auth.token", "issuers.*.auth.secret_id",
	"issuers.*.auth_key", "issuers.*.intermediates",
}

// TestEveryKeyIsJudged: each key that can be written is said to be harmless or
// not, so that a new one is thought about.
func TestEveryKeyIsJudged(t *testing.T) {
	var keys []string
	list := func(prefix string, v any) {
		for f := range reflect.TypeOf(v).Fields() {
			if tag, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); tag != "" { // "" is what is listed by itself
				keys = append(keys, prefix+tag)
			}
		}
	}
	list("issuers.*.", LocalCA{})
	list("issuers.*.permitted.", policy.Names{})
	list("issuers.*.excluded.", policy.Names{})
	list("issuers.*.policy.", policy.Names{})
	list("issuers.*.policy.", CAPolicy{})
	list("issuers.*.", ACME{})
	list("issuers.*.eab.", EAB{})
	list("issuers.*.auth.", VaultAuth{})
	list("issuers.*.limits.", Limits{})
	list("issuers.*.", Vault{})
	list("issuers.*.", CFSSL{})
	list("issuers.*.", AWSPCA{})
	list("defaults.", Defaults{})
	list("", Shared{})
	above := []string{"issuers", "issuers.*.eab", "issuers.*.auth", "issuers.*.limits", "issuers.*.permitted", "issuers.*.excluded", "issuers.*.policy", "solvers", "zones", "defaults"}
	for _, key := range keys {
		n := 0
		for _, set := range [][]string{harmless, hidden, above} {
			if slices.Contains(set, key) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is in %d of the lists of what is harmless, hidden, and has keys below it", key, n)
		}
	}
	for name, solver := range SolverTypes {
		for _, s := range solver.Settings {
			if s.Secret && show([]string{"solvers", "a", s.Name}, "hunter2") != Hidden {
				t.Errorf("%s: %s is shown", name, s.Name)
			}
		}
	}
}
