// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"sync"
	"time"
)

// A watchdog ends what stands still: a step that was begun and is not done in time. After
// its end it does nothing any more, and nothing of it is under way: what net/http gives a
// handler is gone once that returns, and a late touch would end the process.
type watchdog struct {
	after time.Duration // 0 is for ever
	bite  func()

	mu    sync.Mutex
	timer *time.Timer // nil before the first step; guarded by mu
	step  bool        // one is under way; guarded by mu
	ended bool        // guarded by mu
}

// begin is for the beginning of a step.
func (w *watchdog) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.after <= 0 || w.ended:
		return
	case w.timer == nil:
		w.timer = time.AfterFunc(w.after, w.fire)
	default:
		w.timer.Reset(w.after)
	}
	w.step = true
}

// done is for the end of a step.
func (w *watchdog) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop()
}

// end is for the end of all steps.
func (w *watchdog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.stop()
}

func (w *watchdog) stop() {
	w.step = false
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watchdog) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.step {
		w.bite()
	}
}
