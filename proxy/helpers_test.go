// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what takes as long as it takes.
const patience = time.Minute

// A pki is a CA and what it signed.
type pki struct {
	ca    *localca.CA
	roots *x509.CertPool
	store keyturn.Store
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	ca, err := localca.New(localca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	k := &pki{ca: ca, roots: x509.NewCertPool()}
	k.roots.AddCert(ca.Root())
	chain, key := k.issue(t, "localhost", "127.0.0.1")
	if err := k.store.PutPEM("web", chain, key); err != nil {
		t.Fatal(err)
	}
	return k
}

// issue returns a chain and a key for names.
func (k *pki) issue(t *testing.T, names ...string) (chain, key []byte) {
	t.Helper()
	return k.issueFor(t, 0, names...)
}

// issueFor is issue for a time; 0 is the CA's own.
func (k *pki) issueFor(t *testing.T, lifetime time.Duration, names ...string) (chain, key []byte) {
	t.Helper()
	signer, err := issuer.KeyType("").Generate()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(signer, names)
	if err != nil {
		t.Fatal(err)
	}
	ders, err := k.ca.Issue(t.Context(), csr, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range ders {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// client returns the TLS configuration of a client that has a certificate for names, if
// there are any, and offers protos.
func (k *pki) client(t *testing.T, protos []string, names ...string) *tls.Config {
	t.Helper()
	config := &tls.Config{RootCAs: k.roots, ServerName: "localhost", NextProtos: protos}
	if len(names) > 0 {
		pair, err := tls.X509KeyPair(k.issue(t, names...))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// mutual is a server's configuration that verifies clients where they show a certificate.
func (k *pki) mutual() *tls.Config {
	var trust keyturn.Trust
	trust.SetClientCAs(k.roots)
	trust.SetClientAuth(tls.VerifyClientCertIfGiven)
	return trust.ServerConfig(k.store.ServerConfig())
}

// A running proxy.
type running struct {
	*proxy.Proxy
	*pki
	addr string
	log  *logs
}

// start serves, before the handler of a service, or before c.To if there is none.
func start(t *testing.T, c proxy.Config, service http.HandlerFunc) *running {
	t.Helper()
	r := &running{pki: newPKI(t), log: new(logs)}
	if service != nil {
		backend := httptest.NewServer(service)
		t.Cleanup(backend.Close)
		c.To = target(t, backend.Listener.Addr().String())
	}
	if c.TLS == nil {
		c.TLS = r.mutual()
	}
	c.Store, c.Logger = &r.store, slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if c.DrainDelay == 0 {
		c.DrainDelay = -1
	}
	r.serve(t, c)
	return r
}

func (r *running) serve(t *testing.T, c proxy.Config) {
	t.Helper()
	p, err := proxy.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.Proxy, r.addr = p, l.Addr().String()
	served := make(chan error)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		p.Drain(ended)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func target(t *testing.T, s string) proxy.Target {
	t.Helper()
	to, err := proxy.ParseTarget(s)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// http returns a client of HTTP/1.1 or HTTP/2.
func (r *running) http(t *testing.T, version int, names ...string) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: r.client(t, nil, names...), Protocols: new(http.Protocols), DisableCompression: true}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetHTTP2(version == 2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// dial opens a connection that a test speaks HTTP/1.1 on by itself.
func (r *running) dial(t *testing.T, names ...string) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", r.addr, r.client(t, []string{"http/1.1"}, names...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// send writes text and returns what is answered, until the connection's end.
func (r *running) send(t *testing.T, text string, names ...string) string {
	t.Helper()
	c := r.dial(t, names...)
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(c)
	return string(answer)
}

// get returns status and body.
func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// logs keeps lines.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// lines returns those that have a text.
func (l *logs) lines(with string) (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, with) {
			all = append(all, line)
		}
	}
	return all
}

// until waits for what is to become true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// A wire is a service that keeps the bytes it gets, and answers each request that it can
// read with 200.
type wire struct {
	net.Listener
	mu  sync.Mutex
	got bytes.Buffer
	wg  sync.WaitGroup
}

func newWire(t *testing.T) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: l}
	w.wg.Go(w.serve)
	t.Cleanup(func() {
		_ = l.Close()
		w.wg.Wait()
	})
	return w
}

func (w *wire) serve() {
	for {
		c, err := w.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() {
			defer c.Close()
			in := bufio.NewReader(io.TeeReader(c, w))
			for {
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					return
				}
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		})
	}
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.Write(b)
}

func (w *wire) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.got.String()
}
