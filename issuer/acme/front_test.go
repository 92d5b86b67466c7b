// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/acmetest"
)

// Pebble's paths.
const (
	pathDirectory = "/dir"
	pathAccount   = "/sign-me-up"
	pathNewOrder  = "/order-plz"
	pathOrder     = "/my-order/"
	pathAuthz     = "/authZ/"
	pathChallenge = "/chalZ/"
	pathFinalize  = "/finalize-order/"
	pathCert      = "/certZ/"
	pathRollover  = "/rollover-account-key"
)

// A front stands in front of a Pebble, counts requests, and has faults.
type front struct {
	mu     sync.Mutex
	counts map[string]int   // by the path's first part
	faults map[string]fault // by the path's beginning
}

// The faults that other tests have, too.
var says, sends, hangs = acmetest.Says, acmetest.Sends, acmetest.Hangs

type fault = acmetest.Fault

func before(t testing.TB, pebble *acmetest.CA) *front {
	t.Helper()
	f := &front{counts: make(map[string]int), faults: make(map[string]fault)}
	pebble.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			var broken fault
			for path := range maps.Keys(f.faults) {
				if strings.HasPrefix(r.URL.Path, path) {
					broken = f.faults[path]
				}
			}
			first, _, _ := strings.Cut(r.URL.Path[1:], "/")
			f.counts[first]++
			f.mu.Unlock()
			if broken == nil {
				next.ServeHTTP(w, r)
				return
			}
			broken(w, r, next)
		})
	})
	return f
}

// set has a fault at a path; nil ends it.
func (f *front) set(path string, broken fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults[path] = broken
}

// count is how many requests there were for a path.
func (f *front) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[strings.Trim(path, "/")]
}

// changes lets Pebble answer and changes the JSON of it.
func changes(change func(http.Header, map[string]any)) fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		seen := httptest.NewRecorder()
		next.ServeHTTP(seen, r)
		var answer map[string]any
		if err := json.Unmarshal(seen.Body.Bytes(), &answer); err != nil {
			answer = make(map[string]any)
		}
		change(seen.Header(), answer)
		maps.Copy(w.Header(), seen.Header())
		w.WriteHeader(seen.Code)
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// once lets a fault happen once.
func once(f fault) fault {
	var first sync.Once
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		broken := false
		first.Do(func() { broken = true })
		if broken {
			f(w, r, next)
			return
		}
		next.ServeHTTP(w, r)
	}
}
