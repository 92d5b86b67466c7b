// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
)

// twoCAs is a configuration with issuers of both kinds.
func twoCAs() *config.Shared {
	return &config.Shared{
		DefaultIssuer: "internal",
		Issuers: map[string]config.Issuer{
			"internal": {Type: "local", Local: new(config.LocalCA)},
			"public":   {Type: "acme", ACME: new(config.ACME)},
			"ports":    {Type: "acme", ACME: &config.ACME{Challenge: "http-01"}},
		},
	}
}

// TestProofsThatCannotBe has one case for each way in which a challenge and the
// names, or the issuers, do not go together.
func TestProofsThatCannotBe(t *testing.T) {
	for what, c := range map[string]struct {
		spec event.Spec
		says string // "": it is fine
	}{
		"any":                        {event.Spec{Issuer: "public", Names: []string{"a.example", "*.a.example", "192.0.2.1"}}, ""},
		"wildcard by dns":            {event.Spec{Issuer: "ports", Names: []string{"*.a.example"}, Challenge: "dns-01"}, ""},
		"wildcard by a port":         {event.Spec{Issuer: "public", Names: []string{"a.example", "*.a.example"}, Challenge: "tls-alpn-01"}, "*.a.example: a wildcard"},
		"wildcard beside a setting":  {event.Spec{Issuer: "ports", Names: []string{"a.example", "*.a.example"}}, ""},
		"wildcard at a stand-in":     {event.Spec{Issuer: "public", Fallbacks: []string{"ports"}, Names: []string{"*.a.example"}}, ""},
		"address by dns":             {event.Spec{Issuer: "public", Names: []string{"2001:db8::1"}, Challenge: "dns-01"}, "2001:db8::1: an IP address"},
		"unknown challenge":          {event.Spec{Issuer: "public", Names: []string{"a.example"}, Challenge: "http"}, "use one of http-01, tls-alpn-01, dns-01"},
		"challenge of the built-in":  {event.Spec{Issuer: "internal", Names: []string{"a.example"}, Challenge: "http-01"}, "internal is of type local"},
		"profile of the built-in":    {event.Spec{Issuer: "internal", Names: []string{"a.example"}, Profile: "shortlived"}, "internal is of type local"},
		"the built-in stands in":     {event.Spec{Issuer: "public", Fallbacks: []string{"internal"}, Names: []string{"a.example"}, Profile: "shortlived"}, ""},
		"the built-in with wildcard": {event.Spec{Issuer: "internal", Names: []string{"*.a.example"}}, ""},
	} {
		err := checkProof(&c.spec, twoCAs())
		var invalid *InvalidError
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", what, err)
		case c.says != "" && (!errors.As(err, &invalid) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v, want %q", what, err, c.says)
		}
	}
}

func TestIssuersOfARequest(t *testing.T) {
	plain, listed := twoCAs(), twoCAs()
	listed.Defaults.Issuers = []string{"public", "ports", "internal"}
	for what, c := range map[string]struct {
		shared *config.Shared
		r      Request
		want   []string
	}{
		"the default":             {plain, Request{}, []string{"internal"}},
		"the default list":        {listed, Request{}, []string{"public", "ports", "internal"}},
		"one that is named":       {listed, Request{Issuer: "ports"}, []string{"ports"}},
		"all named":               {listed, Request{Issuer: "ports", Fallbacks: []string{"public"}}, []string{"ports", "public"}},
		"others beside the first": {listed, Request{Fallbacks: []string{"internal"}}, []string{"public", "internal"}},
	} {
		first, others := issuersOf(c.r, c.shared)
		if got := append([]string{first}, others...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	for what, names := range map[string][]string{
		"named twice": {"public", "ports", "public"},
		"unknown":     {"public", "nonesuch"},
		"too many":    {"a", "b", "c", "d", "e", "f", "g", "h", "i"},
	} {
		shared := twoCAs()
		if what == "too many" {
			for _, name := range names {
				shared.Issuers[name] = config.Issuer{Type: "local", Local: new(config.LocalCA)}
			}
		}
		var invalid *InvalidError
		if err := checkIssuers(&event.Spec{Issuer: names[0], Fallbacks: names[1:]}, shared); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
