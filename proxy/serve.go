// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/internal/printable"
)

func (p *Proxy) newServer() *http.Server {
	c := p.config
	return &http.Server{
		Handler:                      p,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            max(0, c.HeaderTimeout),
		IdleTimeout:                  c.IdleTimeout,
		MaxHeaderBytes:               c.MaxHeader,
		ErrorLog:                     log.New(failures{p}, "", 0),
		BaseContext:                  func(net.Listener) context.Context { return p.base },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return withClient(keyturn.ConnContext(ctx, conn), conn)
		},
		HTTP2: &http.HTTP2Config{SendPingTimeout: max(0, c.StallTimeout)}, // a client that is gone says nothing
	}
}

// Serve takes connections from l, whose clients speak TLS, until Drain closes it, which
// is no error. It may be called for several listeners.
func (p *Proxy) Serve(l net.Listener) error {
	// The Store has to be what TLS sees: it notes which certificate a connection uses.
	known := p.config.Store.Listener(&listener{l, p})
	if !p.listening(known) {
		_ = known.Close()
		return nil
	}
	err := p.server.Serve(tls.NewListener(known, p.config.TLS))
	if p.draining.Load() {
		return nil
	}
	return fmt.Errorf("proxy: accepting connections on %s: %w", l.Addr(), err)
}

// listening notes a listener, unless there shall be none any more.
func (p *Proxy) listening(l net.Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.listeners = append(p.listeners, l)
	}
	return !p.closed
}

// closeListeners has nothing accepted any more.
func (p *Proxy) closeListeners() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, l := range p.listeners {
		_ = l.Close() // what failed before is not listened on either
	}
}

// A listener counts connections.
type listener struct {
	net.Listener
	proxy *Proxy
}

func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.proxy.stats.accepted.Add(1)
	l.proxy.stats.open.Add(1)
	l.proxy.fresh.Add(1)
	return &conn{Conn: inner, proxy: l.proxy, stall: max(0, l.proxy.config.StallTimeout)}, nil
}

// A conn is a client's, below TLS: what is written to it may not stand still.
type conn struct {
	net.Conn
	proxy *Proxy
	stall time.Duration // 0 is for ever
	ask   sync.Once     // ends its being fresh
	end   sync.Once
	until atomic.Pointer[time.Time] // of writes, where others have set it; nil or zero is none
}

// asked notes that a request has come.
func (c *conn) asked() { c.ask.Do(func() { c.proxy.fresh.Add(-1) }) }

func (c *conn) Write(b []byte) (int, error) {
	if c.stall > 0 {
		end := time.Now().Add(c.stall)
		if until := c.until.Load(); until != nil && !until.IsZero() && until.Before(end) {
			end = *until
		}
		if err := c.Conn.SetWriteDeadline(end); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// SetWriteDeadline bounds writes further: crypto/tls gives the last one of a connection
// that it closes five seconds, and Drain waits for it.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.until.Store(&t)
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline is SetWriteDeadline, and for reads.
func (c *conn) SetDeadline(t time.Time) error {
	c.until.Store(&t)
	return c.Conn.SetDeadline(t)
}

func (c *conn) Close() error {
	c.asked()
	c.end.Do(func() { c.proxy.stats.open.Add(-1) })
	return c.Conn.Close()
}

// failures are what net/http says of connections.
type failures struct{ proxy *Proxy }

func (f failures) Write(line []byte) (int, error) {
	// It has no other sign for it; TestBadHandshakes holds that the words are these.
	if bytes.HasPrefix(line, []byte("http: TLS handshake error from ")) {
		f.proxy.stats.handshakes.Add(1)
	}
	f.proxy.config.Logger.Debug("a client's connection", "error", printable.Start(string(bytes.TrimSpace(line)), maxLine))
	return len(line), nil
}

// maxLine bounds what is logged of what a client has a say in, in bytes.
const maxLine = 300

// Drain ends the service. For DrainDelay connections are accepted as before, and told to
// end with their next answer: those who choose among several proxies see from Stats, or
// what shows it, that this one is to be left alone. Then nothing is accepted any more, and
// requests under way have DrainTimeout to end; so do WebSockets. When ctx ends, all of that
// ends at once. Drain returns when nothing is under way any more, and says how many requests
// and WebSockets it cut off.
func (p *Proxy) Drain(ctx context.Context) (cut int) {
	p.draining.Store(true)
	wait(ctx, p.config.DrainDelay)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.config.DrainTimeout >= 0 {
		ctx, cancel = context.WithTimeout(ctx, p.config.DrainTimeout)
		defer cancel()
	}
	p.closeListeners()
	p.settle(ctx)
	err := p.server.Shutdown(ctx) // knows nothing of WebSockets
	if err == nil {
		select {
		case <-p.flight.landed():
		case <-ctx.Done():
		}
	}
	cut = p.flight.now()
	p.cut()
	_ = p.server.Close() // what is open is cut off; there is nobody to tell of an error
	<-p.flight.landed()
	p.target.CloseIdleConnections()
	return cut
}

// settleTime is how long Drain waits for the first request of connections that were
// accepted last. A handshake takes less, and more than that stands idle anyway.
const settleTime = 2 * time.Second

// settle waits for the first request of each connection. net/http would end one of HTTP/2
// whose handshake was just made.
func (p *Proxy) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for p.fresh.Load() > 0 && ctx.Err() == nil {
		wait(ctx, 10*time.Millisecond)
	}
}

func wait(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Draining reports whether Drain was called.
func (p *Proxy) Draining() bool { return p.draining.Load() }
