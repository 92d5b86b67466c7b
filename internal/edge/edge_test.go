// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// put makes a certificate for localhost and loopback the one of store, and returns its
// serial number.
func put(t testing.TB, store *keyturn.Store) *big.Int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put("dev", tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	return serial
}

// A pipeListener is a network of pipes: with it, time is that of a bubble.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	close(l.closed)
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// dial is for Transport.DialContext.
func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// start serves a new edge on l, and shuts it down at the end of the test.
func start(t testing.TB, config Config, l net.Listener) *Edge {
	t.Helper()
	e := New(config)
	ended := make(chan error, 1)
	go func() { ended <- e.ServeTLS(l) }()
	t.Cleanup(func() {
		if err := e.Shutdown(context.Background()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-ended; err != http.ErrServerClosed {
			t.Errorf("ServeTLS returned %v, want http.ErrServerClosed", err)
		}
	})
	return e
}

// startPiped starts an edge with a certificate, whose clients come by l.dial.
func startPiped(t testing.TB) (e *Edge, l *pipeListener) {
	t.Helper()
	var store keyturn.Store
	put(t, &store)
	l = newPipeListener()
	return start(t, Config{Store: &store}, l), l
}

// listen returns a listener on a free port of loopback.
func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// generation is a certificate to show.
func generation(id string, n uint64, names ...string) Certificate {
	now := time.Now()
	return Certificate{
		ID: id, Names: names, Issuer: "Test CA", Epoch: 1, Generation: n,
		Serial: fmt.Sprintf("%s-%d", id, n), Fingerprint: strings.Repeat("0a", 32),
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(2 * time.Minute), Next: now.Add(42 * time.Second),
	}
}

func TestTurned(t *testing.T) {
	e := New(Config{})
	e.Set(generation("a", 1, "localhost"))
	e.count(true)
	e.count(true)
	e.count(false)
	turn := e.Turned(generation("a", 2, "localhost"))
	if turn.OldSerial != "a-1" || turn.Serial != "a-2" || turn.Handshakes != 2 || turn.Failed != 1 || turn.At.IsZero() {
		t.Errorf("the turn from a Set is %+v", turn)
	}
	e.count(true)
	turn = e.Turned(generation("b", 1, "example.com"))
	if turn.OldSerial != "" || turn.Handshakes != 1 || turn.Failed != 0 {
		t.Errorf("the turn of another is %+v", turn)
	}
	if turn = e.Turned(generation("a", 3, "localhost")); turn.OldSerial != "a-2" || turn.Handshakes != 0 {
		t.Errorf("the second turn is %+v", turn)
	}
	if served, failed := e.Handshakes(); served != 3 || failed != 1 {
		t.Errorf("Handshakes() = %d, %d, want 3, 1", served, failed)
	}
	e.Removed("b")
	e.Removed("unknown")
	state := e.state()
	if len(state.Certificates) != 1 || len(state.Turns) != 3 || state.Turns[0].Generation != 3 {
		t.Errorf("the state is %+v", state)
	}
}

// What the page holds is bounded, whatever it is told of.
func TestBounds(t *testing.T) {
	e := New(Config{})
	var names []string
	for i := range maxNames + 5 {
		names = append(names, fmt.Sprintf("n%d.example", i))
	}
	for i := range uint64(maxTurns + 5) {
		if turn := e.Turned(generation("many", i, names...)); len(turn.Names) != len(names) {
			t.Fatalf("the turn has %d names, want all %d", len(turn.Names), len(names))
		}
	}
	for i := range maxCards + 5 {
		e.Set(generation(fmt.Sprint(i), 1, "x.example"))
	}
	state := e.state()
	if n := len(state.Turns); n != maxTurns {
		t.Errorf("%d turns are kept, want %d", n, maxTurns)
	}
	if n := len(state.Certificates); n != 1+maxCards || state.Count != 1+maxCards+5 {
		t.Errorf("%d of %d certificates are shown", n, state.Count)
	}
	if c := state.Certificates[0]; len(c.Names) != maxNames || c.MoreNames != 5 {
		t.Errorf("%d names are shown and %d more told of, want %d and 5", len(c.Names), c.MoreNames, maxNames)
	}
	names[0] = "changed"
	if e.state().Certificates[0].Names[0] == "changed" {
		t.Error("the caller's names were kept")
	}
}

func TestLarge(t *testing.T) {
	e := New(Config{})
	is := func(want string) {
		t.Helper()
		state := e.state()
		if state.Main != want || want != "" && state.Certificates[0].ID != want {
			t.Errorf("the large certificate is %q, want %q", state.Main, want)
		}
	}
	is("")
	e.Set(generation("z", 1, "z.example"))
	is("z")
	e.Set(generation("a", 1, "a.example"))
	is("z") // stays
	e.Set(generation("dev", 1, "localhost"))
	is("dev")
	newer := generation("newer", 1, "localhost")
	newer.NotBefore = newer.NotBefore.Add(time.Second)
	e.Set(newer)
	is("newer")
	e.Removed("newer")
	is("dev")
	e.Removed("dev")
	is("a")
	e.Removed("a")
	e.Removed("z")
	is("")
}

// drain reads from conn until the edge has closed it, which is after it has counted it.
func drain(t testing.TB, conn net.Conn) {
	t.Helper()
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
}

func TestCounting(t *testing.T) {
	var store keyturn.Store
	put(t, &store)
	l := newPipeListener()
	e := start(t, Config{Store: &store}, l)

	// Nothing is sent: not a handshake.
	probe, err := l.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = probe.Close()

	// A name that the store has not.
	conn, err := l.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "elsewhere.example"})
	if err := client.HandshakeContext(t.Context()); err == nil {
		t.Error("the handshake for a name that is not in the store was served")
	}
	drain(t, conn)

	// Not TLS at all.
	if conn, err = l.dial(t.Context(), "", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("SSH-2.0-x\r\n")); err != nil {
		t.Fatal(err)
	}
	drain(t, conn)

	transport := transport(tls.VersionTLS13, true)
	transport.DialContext = l.dial
	defer transport.CloseIdleConnections()
	for range 3 { // over one connection
		get(t, transport, "https://localhost/state")
	}
	// The probe is over after a shutdown.
	if err := e.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if served, failed := e.Handshakes(); served != 1 || failed != 2 {
		t.Errorf("Handshakes() = %d, %d, want 1 served, 2 failed", served, failed)
	}
}

// A connection that nothing comes on is closed after the deadline, and holds up no one.
// So is one that stops in the middle, which has failed.
func TestStalledHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, l := startPiped(t)
		began := time.Now()
		silent, _ := l.dial(t.Context(), "", "")
		stalled, _ := l.dial(t.Context(), "", "")
		if _, err := stalled.Write([]byte{22, 3, 1}); err != nil {
			t.Fatal(err)
		}
		transport := transport(tls.VersionTLS13, true)
		transport.DialContext = l.dial
		get(t, transport, "https://localhost/state")
		transport.CloseIdleConnections()
		if d := time.Since(began); d != 0 {
			t.Errorf("others waited %v for it", d)
		}
		for _, conn := range []net.Conn{silent, stalled} {
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("the stalled connection was answered")
			}
		}
		if d := time.Since(began); d != handshakeTimeout {
			t.Errorf("the stalled connections were closed after %v, want %v", d, handshakeTimeout)
		}
		synctest.Wait()
		if served, failed := e.Handshakes(); served != 1 || failed != 1 {
			t.Errorf("Handshakes() = %d, %d, want 1, 1", served, failed)
		}
	})
}

// Beyond the bound nothing is accepted until a handshake ends.
func TestHandshakeBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		start(t, Config{}, l)
		conns := make([]net.Conn, 0, maxHandshakes)
		for range maxHandshakes {
			conn, err := l.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
		synctest.Wait()
		_, server := net.Pipe()
		select {
		case l.conns <- server:
			t.Fatal("one more was accepted")
		default:
		}
		_ = conns[0].Close()
		l.conns <- server // deadlocks if it is not accepted
	})
}

// A shutdown does not wait for a handshake in progress, nor for a connection without a
// request, nor does it count them.
func TestShutdownAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, l := startPiped(t)
		stalled, _ := l.dial(t.Context(), "", "")
		if _, err := stalled.Write([]byte{22, 3, 1}); err != nil {
			t.Fatal(err)
		}
		conn, _ := l.dial(t.Context(), "", "")
		unused := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
		if err := unused.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = unused.Read(make([]byte, 1)) }() // session tickets need a reader
		synctest.Wait()
		began := time.Now()
		if err := e.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > time.Second/10 {
			t.Errorf("the shutdown took %v", d)
		}
		if served, failed := e.Handshakes(); served != 1 || failed != 0 {
			t.Errorf("Handshakes() = %d, %d, want 1, 0", served, failed)
		}
		if err := e.ServeTLS(newPipeListener()); err != http.ErrServerClosed {
			t.Errorf("ServeTLS after Shutdown returned %v", err)
		}
	})
}

// A request in progress gets its answer unless the shutdown's time ends first.
func TestShutdownTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, l := startPiped(t)
		conn, _ := l.dial(t.Context(), "", "")
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
		if _, err := client.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // nobody reads the page
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if err := e.Shutdown(ctx); err != context.DeadlineExceeded {
			t.Errorf("Shutdown returned %v, want that its time ended", err)
		}
		_ = conn.Close()
	})
}

type temporary struct{ error }

func (temporary) Temporary() bool { return true }

// A failingListener has the given errors, each once, before anything else.
type failingListener struct {
	net.Listener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) == 0 {
		return l.Listener.Accept()
	}
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var store keyturn.Store
		put(t, &store)
		l := newPipeListener()
		passing := temporary{fmt.Errorf("too many open files")}
		start(t, Config{Store: &store}, &failingListener{l, slices.Repeat([]error{passing}, 3)})
		began := time.Now()
		transport := transport(tls.VersionTLS13, false)
		transport.DialContext = l.dial
		get(t, transport, "https://localhost/state")
		transport.CloseIdleConnections()
		if d := time.Since(began); d != (5+10+20)*time.Millisecond {
			t.Errorf("it was accepted after %v, want 35 ms", d)
		}
	})
	fatal := fmt.Errorf("the listener is broken")
	err := New(Config{}).ServeTLS(&failingListener{newPipeListener(), []error{fatal}})
	if err == nil || !strings.Contains(err.Error(), fatal.Error()) {
		t.Errorf("ServeTLS returned %v, want that %v", err, fatal)
	}
}
