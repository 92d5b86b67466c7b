// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/keyturn/keyturn/proxy"
)

// stall is short, as what has to end by it is waited for.
const stall = 200 * time.Millisecond

// TestSlowClients has clients that stop half-way: each connection ends.
func TestSlowClients(t *testing.T) {
	got := make(chan error, 1)
	r := start(t, proxy.Config{HeaderTimeout: stall, StallTimeout: stall, IdleTimeout: stall}, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		got <- err
	})
	plain, err := net.Dial("tcp", r.addr) // and no handshake
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("without a handshake: %v", err)
	}
	if answer := r.send(t, "GET / HTTP/1.1\r\nHost: a\r\nX: "); strings.Contains(answer, "200") {
		t.Errorf("half a header: %q", answer)
	}
	answer := r.send(t, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
	if !strings.HasPrefix(answer, "HTTP/1.1 408 ") || !strings.Contains(answer, "nothing of the request's body came for 200ms") || !strings.Contains(answer, "Connection: close") {
		t.Errorf("half a body: %q", answer)
	}
	if err := <-got; err == nil {
		t.Error("the service has taken half a body for a whole one")
	}
	if answer := r.send(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
		t.Errorf("a connection that is kept: %q", answer)
	}
	<-got
	until(t, "the end of all connections", func() bool { return r.Stats().Open == 0 })
	if down := r.log.lines("behind the proxy"); len(down) > 0 {
		t.Errorf("the service is to blame: %q", down)
	}
}

// TestLeftBodies has clients that stop in the middle of a body that nobody reads to its end,
// and that net/http would wait for: they get their answer, and the connection ends.
func TestLeftBodies(t *testing.T) {
	down, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = down.Close()
	c := proxy.Config{StallTimeout: stall, MaxBody: 1 << 20}
	early := start(t, c, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	c.To = target(t, down.Addr().String())
	dead := start(t, c, nil)
	for _, test := range []struct {
		to     *running
		method string
		length int
		want   string
	}{
		{dead, "POST", 5, "502 "},
		{dead, "POST", 1 << 20, "502 "}, // more than net/http reads
		{dead, "TRACE", 5, "405 "},
		{dead, "POST", 2 << 20, "413 "},
		{early, "POST", 5, ""}, // the one or the other is there first
		{early, "POST", 1 << 20, "401 "},
	} {
		answer := test.to.send(t, fmt.Sprintf("%s / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nab", test.method, test.length))
		if !strings.HasPrefix(answer, "HTTP/1.1 "+test.want) || strings.Count(answer, "HTTP/1.1 ") != 1 {
			t.Errorf("%s with %d bytes: %q, want %s", test.method, test.length, answer, test.want)
		}
	}
	for _, r := range []*running{dead, early} {
		until(t, "the end of all connections", func() bool { return r.Stats().Open == 0 })
	}
}

// TestDeafService takes a connection, and nothing that is sent on it.
func TestDeafService(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := start(t, proxy.Config{To: target(t, l.Addr().String()), AnswerTimeout: stall}, nil)
	for version := 1; version <= 2; version++ {
		// More than the buffers of all sockets on the way.
		answer, err := r.http(t, version).Post("https://"+r.addr, "", io.LimitReader(zeros{}, 64<<20))
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("over HTTP/%d: %s", version, answer.Status)
		}
		_ = answer.Body.Close()
	}
	until(t, "the end of all requests", func() bool { return r.Stats().InFlight == 0 })
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// TestTrickle has a client that is slow all the time, for longer than it may stand still.
func TestTrickle(t *testing.T) {
	r := start(t, proxy.Config{StallTimeout: stall}, func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err == nil {
			fmt.Fprint(w, n)
		}
	})
	for version := 1; version <= 2; version++ {
		in, out := io.Pipe()
		go func() {
			for range 12 {
				if _, err := out.Write([]byte("x")); err != nil {
					return
				}
				time.Sleep(stall / 8)
			}
			_ = out.Close()
		}()
		res, err := r.http(t, version).Post("https://"+r.addr, "text/plain", in)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(res.Body); err != nil || string(body) != "12" {
			t.Errorf("HTTP/%d: %q, %v", version, body, err)
		}
		_ = res.Body.Close()
	}
}

// TestNobodyReads has a client that asks for much and takes nothing.
func TestNobodyReads(t *testing.T) {
	ended := make(chan bool, 2)
	r := start(t, proxy.Config{StallTimeout: stall}, func(w http.ResponseWriter, r *http.Request) {
		defer func() { ended <- true }()
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	if _, err := io.WriteString(r.dial(t), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-ended

	// This one reads what is on the connection, answers pings, and lets nothing be sent.
	c, err := tls.Dial("tcp", r.addr, r.client(t, []string{"h2"}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for name, value := range map[string]string{":method": "GET", ":scheme": "https", ":authority": "a", ":path": "/"} {
		if err := encoder.WriteField(hpack.HeaderField{Name: name, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	for reset := false; !reset; {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatalf("the connection ends, not the stream: %v", err)
		}
		switch frame := frame.(type) {
		case *http2.RSTStreamFrame:
			reset = true
		case *http2.PingFrame:
			if !frame.IsAck() {
				if err := f.WritePing(true, frame.Data); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	<-ended
}

// TestLimits has requests that are too large.
func TestLimits(t *testing.T) {
	r := start(t, proxy.Config{MaxBody: 10, MaxHeader: 4 << 10}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	})
	for version := 1; version <= 2; version++ {
		c := r.http(t, version)
		for text, want := range map[string]int{"0123456789": 200, "0123456789x": 413} {
			for _, body := range []io.Reader{strings.NewReader(text), struct{ io.Reader }{strings.NewReader(text)}} { // of the second the length is not known
				res, err := c.Post("https://"+r.addr, "text/plain", body)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				if res.StatusCode != want {
					t.Errorf("HTTP/%d, %s: %d", version, text, res.StatusCode)
				}
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.addr, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X", strings.Repeat("x", 64<<10))
		res, err := c.Do(req)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("HTTP/%d: %d", version, res.StatusCode)
			}
		}
		c.CloseIdleConnections()
	}
	// net/http gives a client that was refused half a second to read why.
	until(t, "the end of all connections", func() bool { return r.Stats().Open == 0 })
}

// TestBadHandshakes counts them.
func TestBadHandshakes(t *testing.T) {
	r := start(t, proxy.Config{}, func(http.ResponseWriter, *http.Request) {})
	if _, err := tls.Dial("tcp", r.addr, &tls.Config{ServerName: "other.example", RootCAs: r.roots}); err == nil {
		t.Fatal("a name that there is no certificate for")
	}
	until(t, "a bad handshake", func() bool { return r.Stats().BadHandshakes == 1 })
	until(t, "a line about it", func() bool { return len(r.log.lines("other.example")) == 1 })
}
