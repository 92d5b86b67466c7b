// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
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

// What is under way when a certificate changes is cut only if it was served the old one.
func TestDrainDuringHandshakes(t *testing.T) {
	var opened atomic.Int32
	for name, change := range map[string]func(*stage) (during func()){
		"put": func(s *stage) func() { s.put("id", "a.test"); return func() {} },
		"loaded": func(s *stage) func() {
			load(s, s.store, "id", lazily(s.root.leaf(s, names("a.test")), &opened, "a.test"))
			return func() {}
		},
		"put while draining": func(s *stage) func() {
			s.put("id", "a.test")
			return func() { s.put("id", "a.test") }
		},
		"removed, and put while draining": func(s *stage) func() {
			s.store.Remove("id")
			return func() { s.put("id", "a.test") }
		},
	} {
		bubble(t, name, func(s *stage) {
			first := s.put("id", "a.test")
			old := s.connect()
			client, server := s.dial()
			_, silent := s.dial()
			during := change(s)
			cut := begun(func() int { return s.store.Drain("id", time.Minute) })
			during()
			l := s.handshake(client, server)
			if l.is(first) || !old.is(first) {
				s.Error("a handshake after the change was served the old certificate, or one before it the new one")
			}
			// The one that never says anything may be an old one, for what is known.
			if got := <-cut; got != 2 || old.open() || !l.open() {
				s.Errorf("cut %d, want the old connection and the silent one; the new one is open: %t", got, l.open())
			}
			if _, err := silent.Read(make([]byte, 1)); err == nil {
				s.Error("the connection without a handshake is open")
			}
			if keyturn.Draining(l.ctx) {
				s.Error("nothing waits for the connection any more, and Draining says otherwise")
			}
		})
	}
}

// heldKey is a private key that can be held where crypto/tls looks whether it suits a
// client: in the midst of a choice among several.
type heldKey struct {
	crypto.Signer
	hold func()
}

func (k heldKey) Public() crypto.PublicKey {
	k.hold()
	return k.Signer.Public()
}

// A certificate that was chosen just before a change is not used after Drain has looked.
func TestDrainDuringAChoice(t *testing.T) {
	bubble(t, "", func(s *stage) {
		s.put("other", "a.test")
		var armed atomic.Bool
		gate := make(chan struct{})
		first := s.root.leaf(s, names("a.test"))
		first.PrivateKey = heldKey{first.PrivateKey.(crypto.Signer), func() {
			if armed.CompareAndSwap(true, false) {
				<-gate
			}
		}}
		put(s, s.store, "id", first)

		armed.Store(true)
		client, server := s.dial()
		done := make(chan *link)
		go func() { done <- s.handshake(client, server) }()
		synctest.Wait() // the choice is made, but for what crypto/tls says
		second := s.put("id", "a.test")
		if cut := s.store.Drain("id", 0); cut != 0 {
			s.Errorf("cut %d connections that were served nothing yet", cut)
		}
		close(gate)
		if l := <-done; !l.is(second) {
			s.Error("what was removed before Drain is served after it")
		}
	})
}

// Draining sees through what wraps a connection, and does not say yes of others.
func TestDraining(t *testing.T) {
	bubble(t, "", func(s *stage) {
		s.put("id", "a.test")
		l := s.connect()
		other, _ := net.Pipe()
		defer other.Close()
		for what, ctx := range map[string]context.Context{
			"no connection":         context.Background(),
			"a nil connection":      keyturn.ConnContext(context.Background(), nil),
			"a connection of none":  keyturn.ConnContext(context.Background(), other),
			"one of none below TLS": keyturn.ConnContext(context.Background(), tls.Server(other, s.server)),
			"one that is served":    l.ctx,
		} {
			if keyturn.Draining(ctx) {
				s.Errorf("%s: Draining before anything drains", what)
			}
		}

		// Several wait for it, and one of them gives up.
		client, server := s.dial()
		s.put("id", "a.test")
		all := begun(func() int { return s.store.DrainAll(time.Hour) })
		one := begun(func() int { return s.store.Drain("id", time.Minute) })
		fresh := s.handshake(client, server)
		if !keyturn.Draining(l.ctx) {
			s.Error("not Draining while two wait for the connection")
		}
		if got := <-one; got != 1 || l.open() || !fresh.open() {
			s.Errorf("Drain = %d, want the old connection", got)
		}
		child, cancel := context.WithCancel(fresh.ctx)
		defer cancel()
		if !keyturn.Draining(child) {
			s.Error("DrainAll still waits for the connection, and Draining says otherwise")
		}
		if got := <-all; got != 1 || fresh.open() {
			s.Errorf("DrainAll = %d, want the other connection", got)
		}
	})
}

// What fails to accept or to dial fails as before.
func TestConnectionErrors(t *testing.T) {
	var store keyturn.Store
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := store.Listener(inner)
	if listener.Addr() != inner.Addr() {
		t.Errorf("the address is %v, want %v", listener.Addr(), inner.Addr())
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := listener.Accept(); conn != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, %v after Close", conn, err)
	}
	if conn, err := store.Dialer(nil)(t.Context(), "tcp", inner.Addr().String()); conn != nil || err == nil {
		t.Errorf("dialing what nobody listens on: %v, %v", conn, err)
	}
	failing := func(context.Context, string, string) (net.Conn, error) { return nil, errBad }
	if conn, err := store.Dialer(failing)(t.Context(), "tcp", ""); conn != nil || !errors.Is(err, errBad) {
		t.Errorf("dialing = %v, %v", conn, err)
	}
	if cut := store.DrainAll(time.Hour); cut != 0 {
		t.Errorf("DrainAll = %d without connections", cut)
	}
}
