// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Proxy passes requests on. Make one with New. Its methods may be called by any number
// of goroutines at once.
type Proxy struct {
	config   Config
	identity string // the identity's header, in lower case
	pass     *httputil.ReverseProxy
	target   *http.Transport
	server   *http.Server
	stats    stats
	outage   outage

	draining atomic.Bool
	base     context.Context // of all requests; ended when they are cut off
	cut      context.CancelFunc
	flight   flight
	fresh    atomic.Int64 // connections on which no request has come

	mu        sync.Mutex
	listeners []net.Listener // guarded by mu
	closed    bool           // the listeners are; guarded by mu
}

// New returns a Proxy that serves nothing yet. Drain ends it.
func New(c Config) (*Proxy, error) {
	c, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	p := &Proxy{config: c, identity: strings.ToLower(c.IdentityHeader), target: newTransport(c)}
	p.base, p.cut = context.WithCancel(context.Background())
	p.outage.logger, p.outage.target = c.Logger, c.To.String()
	quiet := slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug)
	p.pass = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      p.target,
		FlushInterval:  -1, // what the service sends bit by bit gets there bit by bit
		ModifyResponse: p.answered,
		ErrorHandler:   p.fail,
		ErrorLog:       quiet,
		BufferPool:     new(buffers),
	}
	p.server = p.newServer()
	return p, nil
}

// newTransport is for the connections to the service, without what http.DefaultTransport
// does beside: proxies of the environment, and compression of its own.
func newTransport(c Config) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	t := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			inner, err := dialer.DialContext(ctx, c.To.network, c.To.address)
			if err != nil || c.AnswerTimeout < 0 {
				return inner, err
			}
			return &serviceConn{inner, c.AnswerTimeout}, nil
		},
		DisableCompression:     true,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        max(0, c.TargetIdle),
		DisableKeepAlives:      c.TargetIdle < 0,
		ResponseHeaderTimeout:  max(0, c.AnswerTimeout),
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxAnswerHeader,
		Protocols:              new(http.Protocols),
	}
	t.Protocols.SetHTTP1(!c.To.http2)
	t.Protocols.SetUnencryptedHTTP2(c.To.http2)
	return t
}

// A serviceConn is one to the service, which has to go on taking what is sent: of a request
// that is not sent yet, net/http bounds nothing, and does not see that its client has gone.
type serviceConn struct {
	net.Conn
	stall time.Duration
}

func (c *serviceConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

const (
	// dialTimeout is for a service on this machine, or next to it.
	dialTimeout = 5 * time.Second
	// maxIdle is how many connections to the service are kept for the next request.
	maxIdle = 256
	// maxAnswerHeader is what net/http lets a request's header have by default.
	maxAnswerHeader = 1 << 20
)

// ServeHTTP passes a request on. Requests have to come from Serve, or from a server with
// the same configuration: what the service is told of the client's certificate is what
// that verified.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.flight.begin()
	defer p.flight.end()
	if c, ok := r.Context().Value(clientKey{}).(*client); ok && c.conn != nil {
		c.conn.asked()
	}
	a := p.newAnswer(w, r)
	defer a.end()
	if p.refuse(a, r) {
		return
	}
	ctx := r.Context()
	if id := identityOf(r); id != nil && webSocket(r, r) {
		// It has no further requests, of which each would be looked at.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, id.ends)
		defer cancel()
	}
	r = r.WithContext(ctx) // net/http looks at the body of its own
	if a.body != nil {
		r.Body = a.body
	}
	p.pass.ServeHTTP(a, r)
}

// refuse answers what is not passed on, and reports whether it did.
func (p *Proxy) refuse(a *answer, r *http.Request) bool {
	id := identityOf(r)
	switch {
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace || r.Method == "PRI": // the last begins HTTP/2
		a.refuse(http.StatusMethodNotAllowed, "this method is not passed on")
	case p.config.MaxBody > 0 && r.ContentLength > p.config.MaxBody:
		a.refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("the request has more than %d bytes", p.config.MaxBody))
	case id != nil && time.Now().After(id.ends):
		// RFC 9110 section 15.5.20: on another connection, with another certificate, it
		// may work.
		a.Header().Set("Connection", "close")
		a.refuse(http.StatusMisdirectedRequest, "the certificate of this connection has ended: connect again")
	default:
		return false
	}
	return true
}

// rewrite makes of a client's request what the service gets.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	in, out := r.In, r.Out
	out.URL.Scheme, out.URL.Host = "http", p.config.To.host
	out.URL.User, out.URL.Opaque = nil, ""
	out.URL.RawQuery = in.URL.RawQuery // httputil leaves out what it cannot read
	out.Host = in.Host
	out.Trailer = nil // it comes after all decisions
	dropReserved(out.Header, p.identity)
	if out.Header.Get("Upgrade") != "" && !webSocket(in, out) {
		out.Header.Del("Upgrade")
		out.Header.Del("Connection")
	}
	setForwarded(in, out, p.config.TrustForwarded)
	identityOf(in).set(out.Header, p.config.IdentityHeader)
}

// webSocket reports whether a request asks for a WebSocket as RFC 6455 section 4.1 says.
// Anything else is not upgraded: over a connection that speaks HTTP/2 (h2c), a client would
// send the service requests that nobody has looked at.
func webSocket(in, out *http.Request) bool {
	return strings.EqualFold(out.Header.Get("Upgrade"), "websocket") && in.Method == http.MethodGet && in.ContentLength == 0 && in.ProtoMajor == 1
}

// buffers are those that bodies are copied through.
type buffers struct{ pool sync.Pool }

// bufferSize is that of io.Copy.
const bufferSize = 32 << 10

func (b *buffers) Get() []byte {
	if buffer, ok := b.pool.Get().(*[bufferSize]byte); ok {
		return buffer[:]
	}
	return make([]byte, bufferSize)
}

func (b *buffers) Put(buffer []byte) { b.pool.Put((*[bufferSize]byte)(buffer)) }
