// SPDX-License-Identifier: Apache-2.0

// Package http01 answers http-01 challenges (RFC 8555 section 8.3): a CA asks for a
// file below /.well-known/acme-challenge/ by plain HTTP, at port 80.
//
// A [Handler] answers inside of an HTTP server that is there already, a [Webroot] by
// files that one serves, and a [Server] on the port itself where nothing else listens.
package http01

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/keyturn/keyturn/solver"
)

// Path is what the paths of all answers start with.
const Path = "/.well-known/acme-challenge/"

// A Handler knows answers and gives them. Its zero value knows none and is ready to
// use. Its methods may be called by any goroutine. It must not be copied after first
// use.
type Handler struct {
	answers atomic.Pointer[map[string]string] // key authorizations by token; nil is none

	mu   sync.Mutex     // makes changes one after the other
	uses map[string]int // guarded by mu; how many challenges wait for a token's answer
}

var _ solver.Solver = (*Handler)(nil)

// Set makes answers, key authorizations by token, all that is known.
func (h *Handler) Set(answers map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := maps.Clone(answers)
	h.uses = nil
	h.answers.Store(&known)
}

// Solve implements solver.Solver: the answer is known until done is called, or until
// the next Set.
func (h *Handler) Solve(_ context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	if err := check(c); err != nil {
		return nil, err
	}
	h.change(c, 1)
	remove := sync.OnceFunc(func() { h.change(c, -1) })
	return func(context.Context) error {
		remove()
		return nil
	}, nil
}

// check returns an error for what is no http-01 challenge, or could lead elsewhere.
func check(c solver.Challenge) error {
	if c.Type != solver.HTTP01 {
		return fmt.Errorf("http-01: a challenge of type %q is answered by another solver", c.Type)
	}
	if err := solver.CheckToken(c.Token); err != nil {
		return fmt.Errorf("http-01: %s: %w", c.Name, err)
	}
	return nil
}

// change makes n more challenges wait for the answer of c.
func (h *Handler) change(c solver.Challenge, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	known := make(map[string]string)
	if old := h.answers.Load(); old != nil {
		maps.Copy(known, *old)
	}
	left := h.uses[c.Token] + n
	switch {
	case left < 0:
		return // Set made others known
	case left == 0:
		delete(h.uses, c.Token)
		delete(known, c.Token)
	default:
		if h.uses == nil {
			h.uses = make(map[string]int)
		}
		h.uses[c.Token], known[c.Token] = left, c.KeyAuthorization
	}
	h.answers.Store(&known)
}

// Wrap returns a handler that gives the answers that h knows, and leaves all else to
// next: other paths, and tokens that h does not know. A nil next answers 404.
func (h *Handler) Wrap(next http.Handler) http.Handler {
	if next == nil {
		next = http.NotFoundHandler()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := h.answer(r)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream") // as in RFC 8555 section 8.3
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = io.WriteString(w, answer) // the CA asks again, or it has gone
	})
}

// ServeHTTP is Wrap(nil): it answers 404 to what is no known challenge.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.Wrap(nil).ServeHTTP(w, r) }

// answer returns the key authorization that a request asks for.
func (h *Handler) answer(r *http.Request) (string, bool) {
	token, ok := strings.CutPrefix(r.URL.Path, Path)
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return "", false
	}
	known := h.answers.Load()
	if known == nil {
		return "", false
	}
	answer, ok := (*known)[token]
	return answer, ok
}
