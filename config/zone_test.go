// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
)

func TestZones(t *testing.T) {
	s, err := config.ParseShared([]byte("issuers: {a: {type: local}}\nzones:\n  .: bus\n  example.com: [bus]\n  xn--bcher-kva.example: bus\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{".": {"bus"}, "example.com": {"bus"}, "xn--bcher-kva.example": {"bus"}}
	if diff := cmp.Diff(want, s.Zones); diff != "" {
		t.Error(diff)
	}
}

func TestZonesRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"zones: bus":                                     "zones: here must be keys with values",
		"zones: {Example.com: bus}":                      `zones["Example.com"]: write the zone as example.com`,
		"zones: {example.com.: bus}":                     `zones["example.com."]: write the zone as example.com`,
		"zones: {'*.example.com': bus}":                  `zones["*.example.com"]: a zone stands for itself and for all names in it: write example.com`,
		"zones: {192.0.2.1: bus}":                        `zones["192.0.2.1"]: a zone is a DNS name, and this is an address`,
		"zones: {example_com: bus}":                      "zones.example_com: bad name",
		"zones: {example.com: []}":                       `zones["example.com"]: no solver answers`,
		"zones: {example.com: }":                         `zones["example.com"]: the key has no value`,
		"zones: {example.com: dns}":                      `zones["example.com"]: there is no solver "dns"; the solvers are bus`,
		"zones:\n  example.com:\n  - bus\n  - bus":       `line 5: zones["example.com"][1]: "bus" is here twice`,
		"zones:\n  example.com: bus\n  example.com: bus": `line 4: zones["example.com"]: the key is here twice`,
	} {
		_, err := config.ParseShared([]byte("issuers: {a: {type: local}}\n" + in + "\n"))
		var one *config.Error
		if !errors.As(err, &one) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", in, err, want)
		}
	}
}
