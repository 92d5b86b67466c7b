// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/solver"
)

const anIssuer = "issuers: {a: {type: local}}\n"

func TestSolvers(t *testing.T) {
	s, err := config.ParseShared([]byte(anIssuer + `solvers:
  port: {type: http-01}
  cf:
    type: cloudflare
    api_token: "12345"
    propagation: 5m
    resolvers: 192.0.2.1
  own: {type: rfc2136, server: "192.0.2.2:53", key_name: k., key_secret: c2VjcmV0, ttl: 30}
zones:
  .: port
  example.com: [cf, bus]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]config.Solver{
		"port": {Type: "http-01"},
		"cf": {
			Type: "cloudflare", Settings: map[string]string{"api_token": "12345"},
			Propagation: config.Duration(5 * time.Minute), Resolvers: []string{"192.0.2.1:53"},
		},
		"own": {Type: "rfc2136", Settings: map[string]string{"server": "192.0.2.2:53", "key_name": "k.", "key_secret": "c2VjcmV0", "ttl": "30"}},
	}
	if diff := cmp.Diff(want, s.Solvers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string][]string{".": {"port"}, "example.com": {"cf", "bus"}}, s.Zones); diff != "" {
		t.Error(diff)
	}
	text, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.ParseShared(text)
	if err != nil || cmp.Diff(s, again, renewBefores) != "" {
		t.Errorf("%v in\n%s", err, text)
	}
}

func TestSolversRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"solvers: dns":                                                          "line 2: solvers: here must be keys with values",
		"solvers: {bus: {type: http-01}}":                                       "line 2: solvers.bus: this is the name of the solver that is always there",
		"solvers: {My: {type: http-01}}":                                        "line 2: solvers.My: a solver's name has",
		"solvers: {a: {}}":                                                      "line 2: solvers.a: the solver has no type; known are acme-dns, azure,",
		"solvers: {a: {type: bind}}":                                            `line 2: solvers.a.type: "bind" is not a type of solver; known are acme-dns,`,
		"solvers: {a: {type: bus}}":                                             "is not a type of solver",
		"solvers: {a: {type: [x]}}":                                             "solvers.a.type: here must be one value",
		"solvers: {a: {type: http-01, port: 80}}":                               "line 2: solvers.a.port: unknown key; known here are type, listen",
		"solvers: {a: {type: http-01, propagation: 5m}}":                        "solvers.a.propagation: unknown key",
		"solvers:\n  a:\n    type: cloudflare\n":                                "line 4: solvers.a.api_token: it is missing: API token that may edit the zone's DNS",
		"solvers:\n  a: {type: cloudflare, api_token: ''}":                      "line 3: solvers.a.api_token: it is empty",
		"solvers:\n  a: {type: cloudflare, api_token: }":                        "line 3: solvers.a.api_token: the key has no value",
		"solvers:\n  a: {type: cloudflare, api_token: [hunter2]}":               "line 3: solvers.a.api_token: here must be one value",
		"solvers:\n  a: {type: cloudflare, api_token: hunter2, propagation: 5}": `line 3: solvers.a.propagation: "5" is not a duration`,
		"solvers:\n  a: {type: cloudflare, api_token: hunter2, token: x}":       "line 3: solvers.a.token: unknown key; known here are type, api_token, zone_token, propagation, resolvers",
		"solvers: {a: {type: http-01}}\nzones: {.: [a, b]}":                     `line 3: zones["."][1]: there is no solver "b"; the solvers are a, bus`,
	} {
		_, err := config.ParseShared([]byte(anIssuer + in + "\n"))
		var one *config.Error
		if !errors.As(err, &one) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s:\n got %v\nwant %s", in, err, want)
		}
	}
}

// TestSolverTypes: what is said of the types can be written.
func TestSolverTypes(t *testing.T) {
	for name, kind := range config.SolverTypes {
		for _, c := range kind.Challenges {
			if !slices.Contains(solver.Types(), c) {
				t.Errorf("%s answers %q", name, c)
			}
		}
		var seen []string
		for _, s := range kind.Settings {
			if slices.Contains([]string{"type", "propagation", "resolvers"}, s.Name) || slices.Contains(seen, s.Name) || s.Doc == "" || strings.HasSuffix(s.Doc, ".") {
				t.Errorf("%s: %+v", name, s)
			}
			seen = append(seen, s.Name)
		}
	}
}
