// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/internal/printable"
)

// answered notes that the service is there.
func (p *Proxy) answered(r *http.Response) error {
	p.outage.over()
	if r.StatusCode == http.StatusSwitchingProtocols {
		p.stats.requests[1].Add(1) // httputil writes that status by itself
	}
	return nil
}

// fail answers where the service did not.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	a, ok := w.(*answer)
	if !ok {
		http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
		return
	}
	if status, reason := a.body.blame(); status != 0 {
		a.Header().Set("Connection", "close") // where the next request begins is not known
		a.refuse(status, reason)
		return
	}
	switch {
	case p.base.Err() != nil:
		a.refuse(http.StatusServiceUnavailable, "this proxy is stopping")
		return
	case r.Context().Err() != nil:
		p.stats.gone.Add(1)
		panic(http.ErrAbortHandler) // nobody is there to be answered
	}
	f := failureOf(err)
	p.stats.failures[f.kind].Add(1)
	p.outage.failed(f, err)
	a.refuse(f.status, "the service behind this proxy "+f.reason)
}

// A failure is one of the service, as clients are told.
type failure struct {
	kind   failureKind
	status int
	reason string
}

type failureKind int

// Kinds of failures, as they are counted.
const (
	unreachable failureKind = iota // there is no connection
	late                           // it did not answer in time
	broken                         // it closed the connection, or its answer is none
	failureKinds
)

// failureOf tells no more than has to be known: an address of the network inside is
// nobody's business.
func failureOf(err error) failure {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return failure{unreachable, http.StatusBadGateway, whyUnreachable(dial)}
	}
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return failure{late, http.StatusGatewayTimeout, "did not answer in time"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return failure{broken, http.StatusBadGateway, "closed the connection without an answer"}
	}
	return failure{broken, http.StatusBadGateway, "gave an answer that cannot be passed on"}
}

func whyUnreachable(err *net.OpError) string {
	var name *net.DNSError
	switch {
	case errors.As(err, &name):
		return "is not found: its name cannot be resolved"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "is down: it refuses connections"
	case errors.Is(err, fs.ErrNotExist):
		return "is down: its socket is not there"
	case errors.Is(err, fs.ErrPermission):
		return "is not reachable: its socket may not be opened"
	case errors.Is(err, os.ErrDeadlineExceeded), err.Timeout():
		return "is not reachable: it does not take connections"
	}
	return "is not reachable"
}

// An outage is logged when it begins and when it is over, however many requests meet it.
type outage struct {
	logger *slog.Logger
	target string

	down atomic.Bool // looked at for each answer

	mu    sync.Mutex
	since time.Time // guarded by mu
	last  time.Time // of the failures; guarded by mu
	count uint64    // of failures; guarded by mu
}

// quiet is how long nothing fails before an outage counts as over: a service that fails
// now and then shall not fill the log.
const quiet = time.Second

func (o *outage) failed(f failure, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = time.Now()
	o.count++
	if o.down.Swap(true) {
		return
	}
	o.since, o.count = o.last, 1
	o.logger.Error("the service behind the proxy "+f.reason+": requests are answered with an error until it is back", "to", o.target, "status", f.status, "error", printable.Start(err.Error(), maxLine))
}

func (o *outage) over() {
	if !o.down.Load() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.last) < quiet || !o.down.Swap(false) {
		return
	}
	o.logger.LogAttrs(context.Background(), slog.LevelInfo, "the service behind the proxy answers again",
		slog.String("to", o.target), slog.Duration("after", time.Since(o.since).Round(time.Millisecond)), slog.Uint64("failed", o.count))
}
