// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	maxListeners = 64
	maxBacklog   = 128 // messages that a listener may be behind

	countsEvery = 500 * time.Millisecond // at most, and only while they change

	// heartbeat is how often a listener that nothing happens to is written to, so that
	// one that is gone is noticed.
	heartbeat = 15 * time.Second

	// writeTimeout is how long a listener may take none of what is written.
	writeTimeout = 2 * heartbeat

	// lastWrite is how long a client may take to read what ends its events, or its
	// connection.
	lastWrite = time.Second / 2

	retry = time.Second // after which a browser connects again
)

var (
	errListeners = errors.New("too many pages are open: close one and reload")
	errEnded     = errors.New("the server is being shut down")
	errSlow      = errors.New("the page reads more slowly than events come")
)

// message is u as a server-sent event.
func message(event string, u update) []byte {
	data, err := json.Marshal(u)
	if err != nil {
		panic(err) // strings, numbers and times of this century
	}
	return bytes.Join([][]byte{[]byte("event: " + event), append([]byte("data: "), data...), nil, nil}, []byte("\n"))
}

// A hub knows who listens. It never waits for them.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
	closed    bool
	wg        sync.WaitGroup // the listeners; added to with mu held and not closed
}

// A listener is an open page.
type listener struct {
	messages chan []byte
	ended    chan struct{} // closed when it is to end
	why      error         // set before ended is closed
}

func newHub() *hub { return &hub{listeners: make(map[*listener]struct{})} }

// add adds a listener, for which done is to be called.
func (h *hub) add() (*listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errEnded
	}
	if len(h.listeners) >= maxListeners {
		return nil, errListeners
	}
	l := &listener{messages: make(chan []byte, maxBacklog), ended: make(chan struct{})}
	h.listeners[l] = struct{}{}
	h.wg.Add(1)
	return l, nil
}

// done takes l out.
func (h *hub) done(l *listener) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.listeners, l)
	h.wg.Done()
}

// listening reports whether anyone does.
func (h *hub) listening() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners) > 0
}

// publish gives m to all listeners and drops those that are too far behind.
func (h *hub) publish(m []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		select {
		case l.messages <- m:
		default:
			l.endLocked(errSlow)
		}
	}
}

// endLocked makes l end, if it does not already. The caller holds the hub's mu.
func (l *listener) endLocked(why error) {
	if l.why == nil {
		l.why = why
		close(l.ended)
	}
}

// close ends all listeners, and refuses new ones.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for l := range h.listeners {
		l.endLocked(errEnded)
	}
}

// wait waits until all listeners are done. Call close first.
func (h *hub) wait(ctx context.Context) error {
	return wait(ctx, &h.wg)
}

// wait waits for wg until ctx ends.
func wait(ctx context.Context, wg *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// events serves what happens as server-sent events, the state first.
func (e *Edge) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // for a proxy that would hold them back
	if r.Method == http.MethodHead {
		return
	}
	l, state, err := e.listen()
	if err != nil {
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	defer e.hub.done(l)

	// The deadlines of the server are for requests that end. Not every writer has
	// them, and one that has none needs none.
	out := http.NewResponseController(w)
	_ = out.SetReadDeadline(time.Time{})
	limit := func() {
		deadline := time.Now()
		if l.why == errEnded {
			deadline = deadline.Add(lastWrite)
		}
		_ = out.SetWriteDeadline(deadline)
	}
	returning := make(chan struct{})
	var limiter sync.WaitGroup
	limiter.Go(func() { // a write that hangs does not outlive the listener
		select {
		case <-l.ended:
			limit()
		case <-returning:
		}
	})
	defer limiter.Wait() // w is not ours after the return
	defer close(returning)

	write := func(m []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		select {
		case <-l.ended: // and its deadline may just have been put off
			limit()
			return false
		default:
		}
		_, err := w.Write(m)
		return err == nil && out.Flush() == nil
	}

	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for m := fmt.Appendf(nil, "retry: %d\n%s", retry.Milliseconds(), state); write(m); {
		select {
		case m = <-l.messages:
		case <-beat.C:
			m = []byte(":\n\n")
		case <-r.Context().Done():
			return
		case <-l.ended:
			return
		}
	}
}
