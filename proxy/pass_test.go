// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/keyturn/keyturn/proxy"
)

// TestPassesOn looks at what gets to the service, and what comes back.
func TestPassesOn(t *testing.T) {
	r := start(t, proxy.Config{}, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("Trailer", "After")
		w.Header().Add("Two", "1")
		w.Header().Add("Two", "2")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s %s %s|%s|%s|%s", r.Method, r.RequestURI, r.Host, body,
			r.Header.Get("Accept-Encoding"), r.Header.Get("X-Forwarded-For"), r.Header.Get("X-Forwarded-Host"), r.Header.Get("X-Forwarded-Proto"))
		w.Header().Set("After", "all")
		w.Header().Set(http.TrailerPrefix+"Unannounced", "too")
	})
	// Paths and queries are as they were sent, whatever a cleaner one would be.
	paths := []string{"/", "//a//b/", "/a/../b/./c", "/%2e%2e/%2F/%61?a=b&a=c", "/?", "/x?a;b=%zz&c", "/a%00b", "/*"}
	for version := 1; version <= 2; version++ {
		c := r.http(t, version)
		for _, path := range paths {
			if strings.HasPrefix(path, "//") {
				continue // this client would take it for an address
			}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.addr, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			before, query, has := strings.Cut(path, "?")
			req.URL.Opaque, req.URL.RawQuery, req.URL.ForceQuery = before, query, has
			req.Host = "www.example.com"
			res, err := c.Do(req)
			if err != nil {
				t.Fatalf("HTTP/%d %s: %v", version, path, err)
			}
			got, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			want := "POST " + path + " www.example.com body |127.0.0.1|www.example.com|https"
			if err != nil || string(got) != want || res.StatusCode != http.StatusTeapot {
				t.Errorf("HTTP/%d: %d %q, %v; want %q", version, res.StatusCode, got, err, want)
			}
			if res.ProtoMajor != version || len(res.Header["Two"]) != 2 || res.Trailer.Get("After") != "all" || res.Trailer.Get("Unannounced") != "too" {
				t.Errorf("HTTP/%d: %v, %v", res.ProtoMajor, res.Header, res.Trailer)
			}
		}
	}
	for _, path := range paths {
		got := r.send(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.Contains(got, "GET "+path+" a ") {
			t.Errorf("%s: %q", path, got)
		}
	}
	if s := r.Stats(); s.Requests[4] == 0 || s.Requests[2] != 0 || s.InFlight != 0 || s.Accepted < 2 {
		t.Errorf("%+v", s)
	}
}

// TestTargets has services that are reached in other ways.
func TestTargets(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Proto, r.Host) })
	plain := &http.Server{Handler: hello}
	go func() { _ = plain.Serve(local) }()
	t.Cleanup(func() { _ = plain.Close() })
	two := &http.Server{Handler: hello, Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = two.Serve(l) }()
	t.Cleanup(func() { _ = two.Close() })
	for to, want := range map[string]string{"unix:" + socket: "HTTP/1.1 ", "h2c://" + l.Addr().String(): "HTTP/2.0 "} {
		r := start(t, proxy.Config{To: target(t, to)}, nil)
		for version := 1; version <= 2; version++ {
			if status, body := get(t, r.http(t, version), "https://"+r.addr); status != 200 || body != want+r.addr {
				t.Errorf("%s: %d %s", to, status, body)
			}
		}
	}
}

func TestParseTarget(t *testing.T) {
	for _, good := range []string{"localhost:80", "127.0.0.1:8080", "[::1]:80", "http://localhost", "http://localhost:8080/", "unix:/run/app.sock", "h2c://localhost:1"} {
		if to, err := proxy.ParseTarget(good); err != nil || to.String() != good {
			t.Errorf("%s: %v, %v", good, to, err)
		}
	}
	for bad, want := range map[string]string{
		"": "no port", "localhost": "no port", "localhost:0": "no port", "localhost:65536": "no port", ":80": "no host",
		"https://localhost": "speaks TLS", "ftp://localhost": "not a target", "unix:app.sock": "absolute",
		"http://localhost/path": "more, or less", "http://u:hidden@localhost": "a user or a password", "u:hidden@localhost": "a user or a password", "http://localhost?": "more, or less", "http://localhost#x": "more, or less",
		"h2c://localhost": "no port", "a b:80": "not a target",
	} {
		if to, err := proxy.ParseTarget(bad); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: %v, %v; want %s", bad, to, err, want)
		}
	}
}

// TestStreams has a service that waits for the client to have read what it sent.
func TestStreams(t *testing.T) {
	next := make(chan bool)
	r := start(t, proxy.Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "6")
		for i := range 3 {
			fmt.Fprintf(w, "%d\n", i)
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			<-next
		}
	})
	for version := 1; version <= 2; version++ {
		res, err := r.http(t, version).Get("https://" + r.addr)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(res.Body)
		for i := range 3 {
			if !lines.Scan() || lines.Text() != fmt.Sprint(i) {
				t.Fatalf("%q, %v", lines.Text(), lines.Err())
			}
			next <- true
		}
		_ = res.Body.Close()
	}
}

// TestEarlyHints has an answer before the answer.
func TestEarlyHints(t *testing.T) {
	r := start(t, proxy.Config{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	})
	for version := 1; version <= 2; version++ {
		hints := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			if code == http.StatusEarlyHints && h.Get("Link") != "" {
				hints++
			}
			return nil
		}})
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.addr, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		res, err := r.http(t, version).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusNoContent || hints != 1 {
			t.Errorf("HTTP/%d: %d, %d hints", version, res.StatusCode, hints)
		}
	}
}

// echo is a service that sends back what comes by WebSocket.
func echo(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, text, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, text); err != nil {
				return
			}
		}
	}
}

func (r *running) webSocket(t *testing.T) *websocket.Conn {
	t.Helper()
	return webSocketOf(t, r.http(t, 1), r.addr)
}

func webSocketOf(t *testing.T, client *http.Client, addr string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), "wss://"+addr+"/", &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

func say(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != text {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestWebSocket(t *testing.T) {
	r := start(t, proxy.Config{}, echo(t))
	c := r.webSocket(t)
	for i := range 3 {
		say(t, c, strings.Repeat("x", i*10_000))
	}
	if s := r.Stats(); s.InFlight != 1 || s.Requests[1] != 1 {
		t.Errorf("%+v", s)
	}
	if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
		t.Error(err)
	}
	until(t, "the end of the WebSocket", func() bool { return r.Stats().InFlight == 0 })
}

// TestWebSocketIdentity has a WebSocket whose client's certificate ends: it ends with it.
func TestWebSocketIdentity(t *testing.T) {
	r := start(t, proxy.Config{}, echo(t))
	client := r.http(t, 1)
	pair, err := tls.X509KeyPair(r.issueFor(t, 2*time.Second, "web.example"))
	if err != nil {
		t.Fatal(err)
	}
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	c := webSocketOf(t, client, r.addr)
	say(t, c, "hello")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := c.Read(ctx); ctx.Err() != nil || err == nil || time.Now().Before(pair.Leaf.NotAfter) {
		t.Errorf("it ends before its client's certificate: %v", err)
	}
	until(t, "the end of the WebSocket", func() bool { return r.Stats().InFlight == 0 })
}
