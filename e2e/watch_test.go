// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"
)

// A watch makes handshakes all the time, with every name at every server, and
// keeps what they got.
type watch struct {
	mu         sync.Mutex
	names      map[string]bool            // guarded by mu
	served     map[string]map[string]bool // guarded by mu; serial numbers by name
	failures   []string                   // guarded by mu
	handshakes int                        // guarded by mu
	work       sync.WaitGroup
	stop       chan struct{}
	once       sync.Once
}

func newWatch() *watch {
	return &watch{names: make(map[string]bool), served: make(map[string]map[string]bool), stop: make(chan struct{})}
}

func (h *watch) add(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names[name] = true
}

// remove leaves a name out. When it returns, no handshake with it is under way.
func (h *watch) remove(name string, replicas []*webReplica) {
	for _, r := range replicas {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.names, name)
}

func (h *watch) watched(name string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.names[name]
}

// start watches a server until the test ends.
func (h *watch) start(t *testing.T, r *webReplica) {
	t.Cleanup(h.end)
	h.work.Go(func() {
		pace := time.NewTicker(10 * time.Millisecond)
		defer pace.Stop()
		for {
			h.mu.Lock()
			names := slices.Sorted(maps.Keys(h.names))
			h.mu.Unlock()
			for _, name := range names {
				select {
				case <-h.stop:
					return
				case <-pace.C:
				}
				h.look(r, name)
			}
		}
	})
}

// look makes one handshake.
func (h *watch) look(r *webReplica, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !h.watched(name) {
		return
	}
	serial, err := r.client(name).serial()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handshakes++
	if err != nil {
		h.failures = append(h.failures, fmt.Sprintf("%s, %s: %v", r.name, name, err))
		return
	}
	if h.served[name] == nil {
		h.served[name] = make(map[string]bool)
	}
	h.served[name][serial] = true
}

func (h *watch) end() {
	h.once.Do(func() { close(h.stop) })
	h.work.Wait()
}

// check ends the watch: no handshake failed, and whatever was served is a
// generation that one of the histories has.
func (h *watch) check(t *testing.T, histories ...map[string]map[string]bool) {
	t.Helper()
	h.end()
	if n := len(h.failures); n > 0 {
		t.Errorf("%d of %d handshakes failed, the first of them:\n%s", n, h.handshakes, h.failures[0])
	}
	serials := 0
	for name, served := range h.served {
		for serial := range served {
			serials++
			if !slices.ContainsFunc(histories, func(known map[string]map[string]bool) bool { return known[name][serial] }) {
				t.Errorf("%s was served with serial %s, which no history has", name, serial)
			}
		}
	}
	if h.handshakes == 0 {
		t.Error("no handshake was made")
	}
	t.Logf("%d handshakes with %d names saw %d certificates", h.handshakes, len(h.served), serials)
}
