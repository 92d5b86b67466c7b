// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// A body is that of a request, whose client may not let it stand still.
type body struct {
	io.ReadCloser
	reading watchdog
	whole   atomic.Bool // it was read to its end

	mu      sync.Mutex
	stalled bool  // guarded by mu
	err     error // why it could not be read; guarded by mu
}

func (p *Proxy) newBody(w http.ResponseWriter, r *http.Request) *body {
	b := &body{ReadCloser: r.Body}
	if p.config.MaxBody > 0 {
		// It does without w, since it is read while the answer is written.
		b.ReadCloser = http.MaxBytesReader(nil, r.Body, p.config.MaxBody)
	}
	b.reading.after = max(0, p.config.StallTimeout)
	// A deadline that is only set when it is over is none for what net/http reads from the
	// connection after the body.
	b.reading.bite = func() {
		b.mu.Lock()
		b.stalled = true
		b.mu.Unlock()
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
	}
	return b
}

// Read is bounded as long as the client is waited for, and not while the service is.
func (b *body) Read(buffer []byte) (int, error) {
	b.reading.begin()
	defer b.reading.done()
	n, err := b.ReadCloser.Read(buffer)
	switch {
	case errors.Is(err, io.EOF):
		b.whole.Store(true)
	case err != nil:
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

// rest reports whether net/http may read what nobody has read of it.
func (b *body) rest() bool { return b != nil && !b.whole.Load() }

// blame returns the answer to a client whose body could not be read; 0 if it was, or
// the service is to blame.
func (b *body) blame() (status int, reason string) {
	if b == nil {
		return 0, ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var large *http.MaxBytesError
	switch {
	case b.err == nil || errors.Is(b.err, http.ErrBodyReadAfterClose):
		return 0, ""
	case errors.As(b.err, &large):
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d bytes", large.Limit)
	case b.stalled:
		return http.StatusRequestTimeout, fmt.Sprintf("nothing of the request's body came for %v", b.reading.after)
	}
	return http.StatusBadRequest, "the request's body is broken"
}
