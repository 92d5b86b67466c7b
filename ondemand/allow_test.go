// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/ondemand"
)

func TestAllow(t *testing.T) {
	allow, err := ondemand.ParseNames("WWW.Example.com.", "*.internal", "*.bücher.example", "192.0.2.7", "10.0.0.0/8", "2001:db8::1/32")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"www.example.com": true, "example.com": false, "a.www.example.com": false,
		"db.internal": true, "internal": false, "a.db.internal": false,
		"a.xn--bcher-kva.example": true, "xn--bcher-kva.example": false,
		"192.0.2.7": true, "192.0.2.8": false, "10.255.0.1": true, "11.0.0.1": false,
		"2001:db8:ffff::1": true, "2001:db9::1": false, "": false, ".": false,
	} {
		if got := allow(t.Context(), name) == nil; got != want {
			t.Errorf("%q is allowed: %v, want %v", name, got, want)
		}
	}
	for says, pattern := range map[string]string{
		"it is empty":         "",
		"not a range":         "10.0.0.0/99",
		"first label, once":   "*.*.example.com",
		"no wildcards for IP": "*.192.0.2.1",
		"it has a port":       "www.example.com:443",
		"a wildcard alone":    "*.*",
	} {
		if _, err := ondemand.ParseNames("ok.example", pattern); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v; want %q", pattern, err, says)
		}
	}
}

// TestAllowModel compares patterns with what they stand for, label by label.
func TestAllowModel(t *testing.T) {
	label := rapid.SampledFrom([]string{"a", "b", "example", "com", "internal", "x-1"})
	name := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(label, 1, 4).Draw(t, "labels"), ".")
	})
	rapid.Check(t, func(t *rapid.T) {
		asked := name.Draw(t, "name")
		var patterns []string
		want := false
		for range rapid.IntRange(0, 4).Draw(t, "patterns") {
			p := name.Draw(t, "pattern")
			if rapid.Bool().Draw(t, "wildcard") {
				p = "*." + p
			}
			patterns = append(patterns, p)
			want = want || matches(strings.Split(p, "."), strings.Split(asked, "."))
		}
		allow, err := ondemand.ParseNames(patterns...)
		if err != nil {
			t.Fatal(err)
		}
		if got := allow(t.Context(), asked) == nil; got != want {
			t.Fatalf("%q by %q: %v, want %v", asked, patterns, got, want)
		}
	})
}

func matches(pattern, name []string) bool {
	if len(pattern) != len(name) {
		return false
	}
	for i := range name {
		if pattern[i] != name[i] && !(i == 0 && pattern[i] == "*") {
			return false
		}
	}
	return true
}

// FuzzServerName takes whatever a client sends.
func FuzzServerName(f *testing.F) {
	for _, seed := range []string{"www.example.com", "WWW.EXAMPLE.COM.", "192.0.2.1", "[::1]", "xn--bcher-kva.example", "xn--a", "*.a.b", "a\x00b", "a..b", "0x7f.1", "\u212a.com"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		name, err := ondemand.ServerName(sent)
		if err != nil {
			return
		}
		again, err := ondemand.ServerName(name)
		if err != nil || again != name {
			t.Errorf("%q becomes %q, and that %q, %v", sent, name, again, err)
		}
		if name == "" || len(name) > 253 || strings.ToLower(name) != name || strings.ContainsAny(name, "*/\\ %") || name[0] == '.' {
			t.Errorf("%q becomes %q", sent, name)
		}
	})
}
