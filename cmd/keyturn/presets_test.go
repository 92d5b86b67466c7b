// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer/acme"
)

// TestPresets: what the configuration says of CAs that are known by name is what
// the client knows of them.
func TestPresets(t *testing.T) {
	if diff := cmp.Diff(slices.Sorted(maps.Keys(acme.Presets)), slices.Sorted(slices.Values(config.Directories()))); diff != "" {
		t.Error(diff)
	}
	for name, preset := range acme.Presets {
		_, err := config.ParseShared([]byte("issuers: {a: {type: acme, terms_agreed: true, directory: " + name + "}}"))
		if (err != nil) != preset.NeedsEAB {
			t.Errorf("%s without an external account: %v", name, err)
		}
	}
}

// TestMaxIssuers: the configuration has as many issuers in a row as a certificate.
func TestMaxIssuers(t *testing.T) {
	for _, n := range []int{event.MaxIssuers, event.MaxIssuers + 1} {
		text := "issuers:\n"
		var names []string
		for i := range n {
			name := "ca" + strings.Repeat("x", i)
			names = append(names, name)
			text += "  " + name + ": {type: local}\n"
		}
		_, err := config.ParseShared([]byte(text + "defaults: {issuers: [" + strings.Join(names, ", ") + "]}\n"))
		if (err == nil) != (n <= event.MaxIssuers) {
			t.Errorf("%d issuers: %v", n, err)
		}
	}
}
