// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn"
)

// A half is one direction of a connection in memory. Unlike [net.Pipe] it holds what is
// not read yet: of two that write at once, neither waits for the other.
type half struct {
	mu     sync.Mutex
	change *sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newHalf() *half {
	h := new(half)
	h.change = sync.NewCond(&h.mu)
	return h
}

func (h *half) Read(to []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.buf.Len() == 0 && !h.closed {
		h.change.Wait()
	}
	return h.buf.Read(to) // io.EOF if it is empty
}

func (h *half) Write(from []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return 0, io.ErrClosedPipe
	}
	h.change.Broadcast()
	return h.buf.Write(from)
}

func (h *half) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.change.Broadcast()
	return nil
}

// An end is a side of a connection in memory, whose address is 192.0.2.1.
type end struct{ in, out *half }

func (e end) Read(to []byte) (int, error)    { return e.in.Read(to) }
func (e end) Write(from []byte) (int, error) { return e.out.Write(from) }
func (e end) Close() error                   { return errors.Join(e.in.Close(), e.out.Close()) }
func (end) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }
func (end) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (end) SetDeadline(time.Time) error      { return nil }
func (end) SetReadDeadline(time.Time) error  { return nil }
func (end) SetWriteDeadline(time.Time) error { return nil }

// pipes is a listener in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) { return <-p, nil }
func (p pipes) Close() error              { return nil }
func (p pipes) Addr() net.Addr            { return end{}.LocalAddr() }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	a, b := newHalf(), newHalf()
	p <- end{a, b}
	return end{b, a}, nil
}

// A stage is where connections are made over memory: store knows the server's, and peer
// the client's, if it is not nil. It lives in a bubble of synctest.
type stage struct {
	testing.TB
	root   *authority
	pipes  pipes
	store  *keyturn.Store
	peer   *keyturn.Store
	server *tls.Config
	client *tls.Config
}

func newStage(t testing.TB) *stage {
	s := &stage{TB: t, root: newRoot(t, "root"), pipes: make(pipes, 1), store: new(keyturn.Store)}
	s.server = s.store.ServerConfig()
	s.client = &tls.Config{RootCAs: s.root.pool(), ServerName: "a.test"}
	return s
}

// put puts a new certificate for a name under id and returns it.
func (s *stage) put(id string, name ...string) tls.Certificate {
	s.Helper()
	cert := s.root.leaf(s, names(name...))
	put(s, s.store, id, cert)
	return cert
}

// resumes makes clients cache sessions, and one connection to get one.
func (s *stage) resumes() {
	s.client.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	l := s.connect()
	if l.resumed {
		s.Fatal("the first connection resumed a session")
	}
	l.client.Close()
	synctest.Wait()
}

// A link is a connection.
type link struct {
	client *tls.Conn
	ctx    context.Context // as a server's handler has it
	ended  chan struct{}   // closed when the client has read the end

	served  []byte // the leaf that the client believes
	resumed bool
}

func (l *link) open() bool {
	synctest.Wait()
	select {
	case <-l.ended:
		return false
	default:
		return true
	}
}

func (l *link) is(cert tls.Certificate) bool { return bytes.Equal(l.served, cert.Certificate[0]) }

// dial returns both ends of a connection on which no handshake has begun.
func (s *stage) dial() (client, server net.Conn) {
	s.Helper()
	dial := s.pipes.dial
	if s.peer != nil {
		dial = s.peer.Dialer(dial)
	}
	client, err := dial(s.Context(), "tcp", "192.0.2.1:443")
	if err != nil {
		s.Fatal(err)
	}
	server, err = s.store.Listener(s.pipes).Accept()
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// handshake does one over what dial returned.
func (s *stage) handshake(client, server net.Conn) *link {
	s.Helper()
	ts := tls.Server(server, s.server)
	go func() {
		defer ts.Close()
		_, _ = io.Copy(ts, ts)
	}()
	l := &link{client: tls.Client(client, s.client), ctx: keyturn.ConnContext(context.Background(), ts), ended: make(chan struct{})}
	if err := l.client.Handshake(); err != nil {
		s.Fatal(err)
	}
	state := l.client.ConnectionState()
	l.served, l.resumed = state.PeerCertificates[0].Raw, state.DidResume
	if err := roundTrip(l.client); err != nil {
		s.Fatal(err)
	}
	go func() {
		defer close(l.ended)
		_, _ = l.client.Read(make([]byte, 1))
		client.Close()
	}()
	return l
}

func (s *stage) connect() *link {
	s.Helper()
	return s.handshake(s.dial())
}

// begun starts what returns how many connections it cut, and waits until it waits.
func begun(drain func() int) <-chan int {
	cut := make(chan int, 1)
	go func() { cut <- drain() }()
	synctest.Wait()
	return cut
}

// bubble runs the subtests in bubbles of their own.
func bubble(t *testing.T, name string, test func(*stage)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(newStage(t)) })
	})
}
