// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"testing"
	"time"
)

// TestWatchdogLate has a timer run out at the moment at which it is stopped: what it calls
// then comes late, and must not touch what is gone.
func TestWatchdogLate(t *testing.T) {
	bitten := 0
	w := watchdog{after: time.Hour, bite: func() { bitten++ }}
	w.begin()
	w.fire()
	if bitten != 1 {
		t.Fatalf("what stands still is ended %d times", bitten)
	}
	w.done()
	w.fire()
	w.begin()
	w.end()
	w.fire()
	w.begin() // as the body's reader may, which outlives the handler
	w.fire()
	if bitten != 1 {
		t.Errorf("what is over is ended, too: %d", bitten)
	}
}
