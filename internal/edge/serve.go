// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxHandshakes    = 512 // at once; beyond them nothing is accepted
	handshakeTimeout = 10 * time.Second

	readHeaderTimeout = 10 * time.Second
	requestTimeout    = 30 * time.Second // for what ends; events set their own
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 16 << 10

	maxAcceptDelay = time.Second
	maxErrorLength = 200
)

// A tlsServer makes the handshakes itself, and gives the connections to net/http.
type tlsServer struct {
	config *tls.Config
	logger *slog.Logger
	count  func(served bool)
	http   *http.Server
	slots  chan struct{} // holds one for each handshake in progress

	// mu guards what follows.
	mu     sync.Mutex
	stops  map[*func()]struct{}  // of the listeners
	fresh  map[net.Conn]struct{} // on which no request has come yet
	closed atomic.Bool           // by a shutdown; set with mu held
	wg     sync.WaitGroup        // the calls of serve; added to with mu held and not closed
	conns  sync.WaitGroup        // what net/http has; added to by calls of serve only
}

func newTLSServer(config *tls.Config, handler http.Handler, logger *slog.Logger, count func(served bool)) *tlsServer {
	s := &tlsServer{
		config: config,
		logger: logger,
		count:  count,
		slots:  make(chan struct{}, maxHandshakes),
		stops:  make(map[*func()]struct{}),
		fresh:  make(map[net.Conn]struct{}),
	}
	s.http = &http.Server{
		Handler:                      handler,
		DisableGeneralOptionsHandler: true,
		ReadTimeout:                  requestTimeout,
		ReadHeaderTimeout:            readHeaderTimeout,
		WriteTimeout:                 requestTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		ConnState:                    s.connState,
		ErrorLog:                     slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return s
}

// connState follows the connections on which no request has come. Without it they
// would hold up http.Server.Shutdown for seconds, as it cannot tell them from one
// whose request is on its way; browsers open them in advance.
func (s *tlsServer) connState(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case state == http.StateClosed:
		delete(s.fresh, conn)
		s.conns.Done()
	case state != http.StateNew:
		delete(s.fresh, conn)
	default:
		s.conns.Add(1)
		if s.closed.Load() {
			closeConn(conn)
		} else {
			s.fresh[conn] = struct{}{}
		}
	}
}

// closeConn closes conn without waiting until the client has taken the last alert.
func closeConn(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	_ = conn.Close()
}

// serve is [Edge.ServeTLS].
func (s *tlsServer) serve(l net.Listener) error {
	ctx, cancel := context.WithCancel(context.Background())
	closeOnce := sync.OnceFunc(func() { _ = l.Close() })
	stop := func() {
		cancel()
		closeOnce()
	}
	defer stop()
	if !s.start(&stop) {
		return http.ErrServerClosed
	}
	defer s.done(&stop)

	ready := &readyListener{conns: make(chan net.Conn), done: ctx.Done(), addr: l.Addr()}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		_ = s.http.Serve(ready) // ends with ready, which ends with ctx
	})
	for {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return http.ErrServerClosed
		}
		conn, err := s.accept(ctx, l)
		if err != nil {
			<-s.slots
			return err
		}
		wg.Go(func() {
			t, err := s.handshake(ctx, conn)
			<-s.slots
			if err != nil {
				_ = conn.Close()
			} else if !ready.put(t) {
				_ = t.Close()
			}
		})
	}
}

// start adds a call of serve, which stop ends, unless there has been a shutdown.
func (s *tlsServer) start(stop *func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		return false
	}
	s.stops[stop] = struct{}{}
	s.wg.Add(1)
	return true
}

func (s *tlsServer) done(stop *func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stops, stop)
	s.wg.Done()
}

// accept returns the next connection. It waits out errors that pass, as when there
// are too many open files.
func (s *tlsServer) accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, maxAcceptDelay) {
		conn, err := l.Accept()
		if err == nil {
			return conn, nil
		}
		if ctx.Err() != nil {
			return nil, http.ErrServerClosed
		}
		var passing interface{ Temporary() bool }
		if !errors.As(err, &passing) || !passing.Temporary() {
			return nil, fmt.Errorf("accepting connections on %s: %w", l.Addr(), err)
		}
		s.logger.Warn("cannot accept connections now", "error", bounded(err), "again_in", delay)
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, http.ErrServerClosed
		}
	}
}

// handshake makes and counts the handshake of conn. The error is for the caller to
// act on; it is logged already.
func (s *tlsServer) handshake(ctx context.Context, conn net.Conn) (*tls.Conn, error) {
	seen := &seenConn{Conn: conn, closed: &s.closed}
	t := tls.Server(seen, s.config)
	limited, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err := t.HandshakeContext(limited)
	switch {
	case err == nil:
		s.count(true)
		return t, nil
	case ctx.Err() != nil: // we ended it
	case !seen.any: // a probe of the port, or a connection opened in advance
	default:
		s.count(false)
		if s.logger.Enabled(ctx, slog.LevelDebug) {
			s.logger.Debug("handshake failed", "remote", conn.RemoteAddr().String(), "error", bounded(err))
		}
		explain(ctx, err)
	}
	return nil, err
}

// explain answers a client that speaks HTTP without TLS, as net/http does.
func explain(ctx context.Context, err error) {
	var plain tls.RecordHeaderError
	if !errors.As(err, &plain) || plain.Conn == nil {
		return
	}
	switch string(plain.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
	default:
		return
	}
	defer context.AfterFunc(ctx, func() { _ = plain.Conn.Close() })()
	_ = plain.Conn.SetDeadline(time.Now().Add(lastWrite))
	const text = "This port speaks HTTPS: use an address that starts with https://\n"
	_, err = fmt.Fprintf(plain.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"+
		"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
	if err == nil {
		// To close while something is unread would reset the connection, and the
		// client might not see the answer.
		_, _ = io.CopyN(io.Discard, plain.Conn, maxHeaderBytes)
	}
}

// bounded is the text of err, which a peer has a part in: quoted, and cut.
func bounded(err error) string {
	text := err.Error()
	return fmt.Sprintf("%q", text[:min(len(text), maxErrorLength)])
}

// shutdown is the part of [Edge.Shutdown] that is about the listeners.
func (s *tlsServer) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed.Store(true)
	for stop := range s.stops {
		(*stop)()
	}
	for conn := range s.fresh {
		closeConn(conn)
	}
	s.mu.Unlock()

	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return cmp.Or(err, wait(ctx, &s.wg), wait(ctx, &s.conns))
}

// A seenConn is what is under TLS. It knows whether anything was read, of which it is
// asked before the handshake has ended only, and keeps crypto/tls from waiting five
// seconds to take leave of a client that does not read.
type seenConn struct {
	net.Conn
	any    bool
	closed *atomic.Bool // by a shutdown
}

func (c *seenConn) SetWriteDeadline(t time.Time) error {
	if last := time.Now().Add(lastWrite); c.closed.Load() && t.After(last) {
		t = last
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *seenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.any = true
	}
	return n, err
}

// A readyListener gives connections to net/http after their handshakes.
type readyListener struct {
	conns chan net.Conn
	done  <-chan struct{}
	addr  net.Addr
}

// put hands conn over, and reports whether it did.
func (l *readyListener) put(conn net.Conn) bool {
	select {
	case l.conns <- conn:
		return true
	case <-l.done:
		return false
	}
}

func (l *readyListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *readyListener) Close() error   { return nil }
func (l *readyListener) Addr() net.Addr { return l.addr }
