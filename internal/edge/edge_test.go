// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// One that was never served shuts down too.
func TestShutdownOfNothing(t *testing.T) {
	e := New(Config{})
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
}
