// SPDX-License-Identifier: Apache-2.0

package acmetest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
)

// A Fault answers instead of the CA, which is next, or by what that answers.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Says answers with a status and a problem of a type; header is "Name: value".
func Says(status int, kind, detail string, header ...string) Fault {
	body, err := json.Marshal(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status})
	if err != nil {
		panic(err)
	}
	return Sends(status, "application/problem+json", string(body), header...)
}

// Sends answers with a body. The nonce is the CA's own, so that the next request is
// refused for nothing else.
func Sends(status int, contentType, body string, header ...string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen := httptest.NewRecorder()
		ask := httptest.NewRequestWithContext(r.Context(), http.MethodGet, "/nonce-plz", nil)
		ask.Header.Set("User-Agent", "test")
		next.ServeHTTP(seen, ask)
		w.Header().Set("Replay-Nonce", seen.Header().Get("Replay-Nonce"))
		w.Header().Set("Content-Type", contentType)
		for _, line := range header {
			name, value, _ := strings.Cut(line, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// Hangs never answers, not even one who has just given up.
func Hangs(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}
