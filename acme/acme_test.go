// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/acme"
	"github.com/keyturn/keyturn/internal/acmetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, acmetest.IgnorePebble()) }

const (
	name  = "example.com"
	other = "www.example.com"
)

// configFor is for the names at a CA, in a directory of the test.
func configFor(t *testing.T, ca *acmetest.CA, names ...string) acme.Config {
	t.Helper()
	return acme.Config{
		Names: names, Directory: ca.Directory(), Roots: ca.WebPool(), TermsAgreed: true,
		Resolvers: []string{ca.DNS.Addr()}, Dir: filepath.Join(t.TempDir(), "acme"),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// port is where the CA looks for tls-alpn-01.
func port(ca *acmetest.CA) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(ca.TLSPort)) }

// listen serves HTTP with the configuration's certificate until the test ends.
func listen(t *testing.T, c acme.Config, address string) *http.Server {
	t.Helper()
	l, err := c.Listen(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, l)
}

// serve serves until the test ends, or what it returns is closed.
func serve(t *testing.T, l net.Listener) *http.Server {
	t.Helper()
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Proto)
		}),
		ErrorLog: log.New(io.Discard, "", 0), // clients that are refused, which tests are about
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
	return server
}

// open opens a Server that the test closes, and serves it on the CA's port.
func open(t *testing.T, c acme.Config, address string) *acme.Server {
	t.Helper()
	s, err := c.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if address != "" {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, s.Listener(l))
	}
	return s
}

func wait(t *testing.T, s *acme.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Wait(ctx); err != nil {
		t.Fatal(err)
	}
}

// dial shakes hands by a name and returns what is served.
func dial(t *testing.T, address, name string, roots *x509.CertPool) (*x509.Certificate, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d := &tls.Dialer{Config: &tls.Config{ServerName: name, RootCAs: roots}}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

func mustDial(t *testing.T, address, name string, ca *acmetest.CA) *x509.Certificate {
	t.Helper()
	leaf, err := dial(t, address, name, ca.IssuerRoots())
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestListen has a certificate from nothing: the first handshake waits for it.
func TestListen(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	listen(t, configFor(t, ca, name, other), port(ca))
	leaf := mustDial(t, port(ca), name, ca)
	if again := mustDial(t, port(ca), other, ca); !again.Equal(leaf) {
		t.Error("the names have different certificates")
	}
	if n := ca.Finalized(name, other); n != 1 {
		t.Errorf("%d orders, want 1", n)
	}
	for _, unknown := range []string{"elsewhere.example.com", "a.www.example.com", ""} {
		if _, err := dial(t, port(ca), unknown, ca.IssuerRoots()); err == nil {
			t.Errorf("a handshake for %q, which is not listed, succeeds", unknown)
		}
	}
	if n := ca.Finalized(); n != 1 {
		t.Errorf("%d orders after handshakes for unknown names", n)
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: ca.IssuerRoots()},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", port(ca))
		},
	}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get("https://" + name + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if proto, err := io.ReadAll(resp.Body); err != nil || string(proto) != "HTTP/2.0" {
		t.Errorf("served by %q, %v", proto, err)
	}
}

// TestServerConfig serves by http.Server, which nobody sees begin.
func TestServerConfig(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	s := open(t, configFor(t, ca, name), "")
	l, err := net.Listen("tcp", port(ca))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, tls.NewListener(l, s.TLSConfig()))
	wait(t, s)
	mustDial(t, port(ca), name, ca)
}

// TestRestart serves what is kept while the CA is down.
func TestRestart(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	c := configFor(t, ca, name)
	l, err := c.Listen(t.Context(), port(ca))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			go func() {
				_ = conn.(*tls.Conn).HandshakeContext(t.Context()) // the client sees it
				_ = conn.Close()
			}()
		}
	}()
	leaf := mustDial(t, port(ca), name, ca)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	ca.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	})
	server := listen(t, c, port(ca))
	if again := mustDial(t, port(ca), name, ca); !again.Equal(leaf) {
		t.Error("another certificate is served after a restart")
	}
	if err := server.Close(); err != nil { // what is being written is not there yet
		t.Fatal(err)
	}
	files, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
		names = append(names, f.Name())
	}
	if got := strings.Join(names, " "); !strings.HasPrefix(got, "account-127.0.0.1-") || !strings.HasSuffix(got, ".json example.com.json example.com.lock example.com.pem") {
		t.Errorf("the directory has %s", got)
	}
	if fi, err := os.Stat(c.Dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v", fi.Mode(), err)
	}
}
