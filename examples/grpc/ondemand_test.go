// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

// Calls go on while the one certificate of both sides changes.
func TestOndemand(t *testing.T) {
	program := exampletest.Start(t, run, "both", "--lifetime", "5s", "--age", "100ms", "--every", "1ms", "--listen", "127.0.0.1:0")
	callers, servers := make(map[string]bool), make(map[string]bool)
	for len(callers) < 3 || len(servers) < 3 {
		line := program.Line()
		if strings.HasPrefix(line, "failed") {
			t.Fatal(line)
		}
		if serial, ok := strings.CutPrefix(line, "/grpc.health.v1.Health/Check by "); ok {
			callers[serial] = true
		}
		if serial, ok := strings.CutPrefix(line, "SERVING by "); ok {
			servers[serial] = true
		}
	}
	if callers["nobody"] || servers["nobody"] {
		t.Error("a side has shown no certificate")
	}
}
