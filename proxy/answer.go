// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net/http"
	"strconv"
	"time"

	"github.com/keyturn/keyturn"
)

// An answer is one on its way to the client.
type answer struct {
	http.ResponseWriter
	proxy   *Proxy
	request *http.Request
	began   time.Time
	body    *body // of the request; nil if it has none
	told    bool  // the final status is written
	writing watchdog
}

func (p *Proxy) newAnswer(w http.ResponseWriter, r *http.Request) *answer {
	a := &answer{ResponseWriter: w, proxy: p, request: r, began: time.Now()}
	if r.Body != nil && r.Body != http.NoBody {
		a.body = p.newBody(w, r)
	}
	a.writing.after = max(0, p.config.StallTimeout)
	control := http.NewResponseController(w)
	switch {
	case r.ProtoMajor == 2:
		// Its client may take what is sent on the connection, and grant this stream
		// nothing more. Of HTTP/1.1 it is the connection that stands still.
		a.writing.bite = func() { _ = control.SetWriteDeadline(time.Unix(1, 0)) }
	case a.body != nil:
		// Before it writes, net/http reads what is left of the body.
		a.writing.bite = func() {
			if a.body.rest() {
				_ = control.SetReadDeadline(time.Unix(1, 0))
			}
		}
	default:
		a.writing.after = 0
	}
	return a
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader counts the status, and has a connection end that is to be given up.
func (a *answer) WriteHeader(status int) {
	if status >= http.StatusOK && !a.told {
		a.told = true
		a.proxy.stats.answered(status, time.Since(a.began))
		if a.proxy.draining.Load() || keyturn.Draining(a.request.Context()) {
			a.Header().Set("Connection", "close")
		}
	}
	a.ResponseWriter.WriteHeader(status)
}

// Write may not stand still.
func (a *answer) Write(b []byte) (int, error) {
	a.writing.begin()
	defer a.writing.done()
	return a.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController.
func (a *answer) FlushError() error {
	a.writing.begin()
	defer a.writing.done()
	return http.NewResponseController(a.ResponseWriter).Flush()
}

// end is for the end of the handler. What it leaves of the body of HTTP/1.1, net/http
// reads, up to some bound, to find the next request.
func (a *answer) end() {
	a.writing.end()
	if a.body == nil {
		return
	}
	a.body.reading.end()
	if stall := a.body.reading.after; stall > 0 && a.request.ProtoMajor == 1 && a.body.rest() {
		_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(time.Now().Add(stall))
	}
}

// refuse answers with the proxy's own word.
func (a *answer) refuse(status int, reason string) {
	h := a.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	text := http.StatusText(status) + ": " + reason + "\n"
	h.Set("Content-Length", strconv.Itoa(len(text)))
	a.WriteHeader(status)
	if a.request.Method != http.MethodHead {
		_, _ = a.Write([]byte(text))
	}
	_ = a.FlushError() // net/http would write it when nothing bounds that any more
}
