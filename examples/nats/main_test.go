// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The server's certificate changes, and messages arrive over each connection.
func TestRotation(t *testing.T) {
	program := exampletest.Start(t, run, "--lifetime", "5s", "--reconnect", "1s", "--port", "-1")
	serials := make(map[string]bool)
	for len(serials) < 3 {
		serials[program.After("connected to ")] = true
		program.After("received hello")
	}
}

func TestRefused(t *testing.T) {
	err := run(t.Context(), []string{"--as", "spiffe://example.org/ns/prod/sa/guest", "--port", "-1"}, io.Discard)
	if err == nil {
		t.Error("a guest is let in")
	}
}
