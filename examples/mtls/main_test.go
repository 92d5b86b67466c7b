// SPDX-License-Identifier: Apache-2.0

package main

import (
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var line = regexp.MustCompile(`^called by spiffe://example\.org/ns/prod/sa/web with (\w+), answered by spiffe://example\.org/ns/prod/sa/db with (\w+)$`)

// Both certificates change, and no request fails.
func TestRotation(t *testing.T) {
	program := exampletest.Start(t, run, "--lifetime", "5s", "--every", "1ms", "--listen", "127.0.0.1:0")
	callers, servers := make(map[string]bool), make(map[string]bool)
	for len(callers) < 3 || len(servers) < 3 {
		said := line.FindStringSubmatch(program.Line())
		if said == nil {
			t.Fatal("a request failed")
		}
		callers[said[1]], servers[said[2]] = true, true
	}
}

func TestRefused(t *testing.T) {
	program := exampletest.Start(t, run, "--as", "spiffe://example.org/ns/prod/sa/guest", "--every", "1ms", "--listen", "127.0.0.1:0")
	for range 10 {
		if said := program.Line(); !strings.HasPrefix(said, "failed: ") {
			t.Errorf("%q, want that a guest is refused", said)
		}
	}
}
