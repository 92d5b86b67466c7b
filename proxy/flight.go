// SPDX-License-Identifier: Apache-2.0

package proxy

import "sync"

// A flight is how many requests are under way.
type flight struct {
	mu    sync.Mutex
	n     int
	waits []chan struct{} // closed when n is 0
}

func (f *flight) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n++
}

func (f *flight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 {
		for _, w := range f.waits {
			close(w)
		}
		f.waits = nil
	}
}

func (f *flight) now() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// landed returns a channel that is closed when nothing is under way.
func (f *flight) landed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := make(chan struct{})
	if f.n == 0 {
		close(w)
	} else {
		f.waits = append(f.waits, w)
	}
	return w
}
