// SPDX-License-Identifier: Apache-2.0

package config

import "testing"

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
		{"password"}, {"issuers", "a", "token"}, {"issuers", "a"}, {"issuers", "a", "key", "0"}, {"issuers", "a", "settings", "lifetime"}, {"issuers", "a", "account_key"}, {"issuers", "a", "eab", "hmac_key"}, {"zones"}, {"other", "*", "lifetime"}, nil,
	} {
		if got := show(path, "hunter2"); got != Hidden {
			t.Errorf("%v: %s", path, got)
		}
	}
}
