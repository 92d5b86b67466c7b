// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keyturn/keyturn/internal/haproxy"
	"github.com/keyturn/keyturn/internal/testprogram"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
)

// A stage is what a proxy is tested with: a service, and a CA that signs its certificates.
type stage struct {
	dir     string
	ca      *localca.CA
	roots   *x509.CertPool
	service *httptest.Server
}

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{dir: t.TempDir(), roots: x509.NewCertPool()}
	var err error
	if s.ca, err = localca.New(localca.Config{}); err != nil {
		t.Fatal(err)
	}
	s.roots.AddCert(s.ca.Root())
	if err := os.WriteFile(filepath.Join(s.dir, "root.pem"), s.ca.RootPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.service = httptest.NewServer(http.HandlerFunc(serveStage))
	t.Cleanup(s.service.Close)
	s.turn(t)
	return s
}

// serveStage sends back what comes, by WebSocket or as a body.
func serveStage(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		body, err := io.ReadAll(r.Body) // net/http does not write while it reads
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write(body)
		return
	}
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, text, err := c.Read(r.Context())
		if err != nil || c.Write(r.Context(), kind, text) != nil {
			return
		}
	}
}

// turn writes a new certificate and its key, each to another name and then renamed.
func (s *stage) turn(t *testing.T) {
	t.Helper()
	key, err := issuer.KeyType("").Generate()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(key, []string{"localhost", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	ders, err := s.ca.Issue(context.Background(), csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var chain bytes.Buffer
	for _, der := range ders {
		chain.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "cert.pem": chain.Bytes()} {
		file := filepath.Join(s.dir, name)
		if err := os.WriteFile(file+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
}

// A proxyProcess is a "keyturn proxy".
type proxyProcess struct {
	cmd   *exec.Cmd
	admin string
	out   bytes.Buffer // read when it has ended
	ended <-chan struct{}
}

// start starts a proxy before the service, and returns when it is ready.
func (s *stage) start(t *testing.T, admin string, args ...string) *proxyProcess {
	t.Helper()
	return s.run(t, admin, exec.Command("keyturn", append(s.args(admin), args...)...))
}

func (s *stage) args(admin string) []string {
	return []string{"proxy", "--to", s.service.Listener.Addr().String(), "--cert", filepath.Join(s.dir, "cert.pem"), "--key", filepath.Join(s.dir, "key.pem"), "--admin", admin}
}

func (s *stage) run(t *testing.T, admin string, cmd *exec.Cmd) *proxyProcess {
	t.Helper()
	p := &proxyProcess{admin: admin, cmd: cmd}
	cmd.Stdout, cmd.Stderr = &p.out, &p.out
	var err error
	if p.ended, err = testprogram.Start(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%q said:\n%s", cmd.Args, p.out.Bytes())
		}
	})
	notice := make(chan bool)
	go func() { // the port may still answer for a predecessor
		<-p.ended
		close(notice)
	}()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if res, err := http.Get("http://" + admin + "/readyz"); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == 200 {
				return p
			}
		}
		select {
		case <-notice:
			t.Fatalf("it has ended: %s", p.out.Bytes())
		default:
		}
		if time.Now().After(end) {
			t.Fatal("it is not ready")
		}
	}
}

// end tells it to end, and waits until it has.
func (p *proxyProcess) end(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it exits with %d: %s", code, p.out.Bytes())
	}
}

// A load is what goes on while something changes: what has failed is remembered.
type load struct {
	t       *testing.T
	ctx     context.Context
	end     context.CancelFunc
	all     sync.WaitGroup
	done    sync.Map // *atomic.Int64, by what was done
	serials sync.Map // of the certificates that were seen
}

func newLoad(t *testing.T) *load {
	l := &load{t: t}
	l.ctx, l.end = context.WithCancel(context.Background())
	t.Cleanup(l.stop)
	return l
}

func (l *load) stop() {
	l.end()
	l.all.Wait()
}

// keep does one thing over and over until the end.
func (l *load) keep(what string, do func() error) {
	n := new(atomic.Int64)
	l.done.Store(what, n)
	l.all.Go(func() {
		for l.ctx.Err() == nil {
			if err := do(); err != nil {
				l.t.Errorf("%s: after %d: %v", what, n.Load(), err)
				return
			}
			n.Add(1)
		}
	})
}

// fewest is how many there are of what was done least.
func (l *load) fewest() int64 {
	fewest := int64(math.MaxInt64)
	l.done.Range(func(_, n any) bool {
		fewest = min(fewest, n.(*atomic.Int64).Load())
		return true
	})
	return fewest
}

// stopAt is stop when there are at least so many of each: on a busy machine that is
// later.
func (l *load) stopAt(least int64) {
	l.t.Helper()
	for end := time.Now().Add(patience); l.fewest() < least && !l.t.Failed() && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	l.stop()
	l.done.Range(func(what, n any) bool {
		if done := n.(*atomic.Int64).Load(); done < least {
			l.t.Errorf("%s: only %d were done", what, done)
		} else {
			l.t.Logf("%s: %d, 0 failed", what, done)
		}
		return true
	})
}

// client returns a client of HTTP/1.1 or 2; without keep each request has a connection of
// its own.
func (s *stage) client(l *load, version int, keep bool) *http.Client {
	transport := &http.Transport{DisableKeepAlives: !keep, Protocols: new(http.Protocols), TLSClientConfig: &tls.Config{
		RootCAs: s.roots, VerifyConnection: func(cs tls.ConnectionState) error {
			l.serials.Store(cs.PeerCertificates[0].SerialNumber.String(), true)
			return nil
		},
	}}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetHTTP2(version == 2)
	l.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// get asks for what the service sends back, with a body if there is one.
func get(c *http.Client, url, body string) error {
	method := http.MethodGet
	if body != "" {
		method = http.MethodPut // which may be repeated, as GET may
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && (res.StatusCode != 200 || string(got) != body) {
		err = fmt.Errorf("%d %.100q", res.StatusCode, got)
	}
	return err
}

// http has requests made over HTTP/1.1 and 2, on kept connections and on new ones.
func (l *load) http(s *stage, url string) {
	for version := 1; version <= 2; version++ {
		for _, keep := range []bool{true, false} {
			c := s.client(l, version, keep)
			for i := range 3 {
				l.keep(fmt.Sprintf("HTTP/%d, kept: %v, %d", version, keep, i), func() error { return get(c, url, "") })
			}
		}
	}
}

// TestProxyUnderLoad has clients of all kinds at once, while the certificate changes every
// second.
func TestProxyUnderLoad(t *testing.T) {
	s := newStage(t)
	address, admin := freeAddress(t), freeAddress(t)
	p := s.start(t, admin, "--listen", address, "--drain-delay", "1s")
	url := "https://" + address
	l := newLoad(t)
	l.http(s, url)
	large := strings.Repeat("x", 200_000)
	upload := s.client(l, 2, true)
	l.keep("uploads", func() error { return get(upload, url, large) })
	for _, version := range []string{"--http1.1", "--http2"} {
		l.keep("curl "+version, func() error {
			out, err := exec.Command("curl", "-sS", "--fail", version, "--cacert", filepath.Join(s.dir, "root.pem"), "-d", "hello", url).CombinedOutput()
			if err == nil && string(out) != "hello" {
				err = fmt.Errorf("%q", out)
			}
			return err
		})
	}
	c, _, err := websocket.Dial(t.Context(), "wss://"+address, &websocket.DialOptions{HTTPClient: s.client(l, 1, true)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	l.keep("messages of one WebSocket", func() error { return message(c) })
	slow := s.client(l, 1, true)
	l.keep("slow bodies", func() error { return trickle(slow, url) })

	const turns = 6
	for range turns {
		time.Sleep(time.Second) // the load goes on
		s.turn(t)
	}
	time.Sleep(time.Second)
	l.stopAt(3)
	seen := 0
	l.serials.Range(func(any, any) bool {
		seen++
		return true
	})
	if seen < turns {
		t.Errorf("%d certificates were seen of %d", seen, turns+1)
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	p.end(t)
}

func message(c *websocket.Conn) error {
	if err := c.Write(context.Background(), websocket.MessageText, []byte("hello")); err != nil {
		return err
	}
	_, got, err := c.Read(context.Background())
	if err == nil && string(got) != "hello" {
		err = fmt.Errorf("%q", got)
	}
	return err
}

// trickle sends a body bit by bit.
func trickle(c *http.Client, url string) error {
	in, out := io.Pipe()
	go func() {
		for range 5 {
			if _, err := out.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		_ = out.Close()
	}()
	res, err := c.Post(url, "text/plain", in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err == nil && string(got) != "xxxxx" {
		err = fmt.Errorf("%d %q", res.StatusCode, got)
	}
	return err
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := testprogram.FreePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
}

// TestProxiesBehindHAProxy replaces two proxies one after the other, twice.
func TestProxiesBehindHAProxy(t *testing.T) {
	s := newStage(t)
	front := freeAddress(t)
	var addresses, admins [2]string
	var proxies [2]*proxyProcess
	start := func(i int) {
		proxies[i] = s.start(t, admins[i], "--listen", addresses[i], "--drain-delay", "2s", "--trust-forwarded", "127.0.0.0/8")
	}
	configuration := fmt.Sprintf(`
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend front
  bind %s
  default_backend proxies
backend proxies
  balance roundrobin
  option httpchk GET /readyz
  default-server check inter 200ms fall 2 rise 1 ssl alpn http/1.1 ca-file %s sni str(localhost) verifyhost localhost no-check-ssl
`, front, filepath.Join(s.dir, "root.pem"))
	for i := range proxies {
		addresses[i], admins[i] = freeAddress(t), freeAddress(t)
		start(i)
		_, port, err := net.SplitHostPort(admins[i])
		if err != nil {
			t.Fatal(err)
		}
		configuration += fmt.Sprintf("  server p%d %s port %s\n", i, addresses[i], port)
	}
	haproxy.Start(t, configuration, front)
	url := "http://" + front
	before := newLoad(t)
	once := s.client(before, 1, true)
	for end := time.Now().Add(patience); get(once, url, "") != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("HAProxy has no server")
		}
	}
	l := newLoad(t)
	for _, keep := range []bool{true, false} {
		c := s.client(l, 1, keep)
		for i := range 4 {
			l.keep(fmt.Sprintf("through HAProxy, kept: %v, %d", keep, i), func() error { return get(c, url, strings.Repeat("x", i*1000)) })
		}
	}
	for range 2 {
		for i := range proxies {
			proxies[i].end(t)
			start(i)
			time.Sleep(time.Second) // HAProxy notices
		}
	}
	l.stopAt(100)
}
