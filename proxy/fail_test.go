// SPDX-License-Identifier: Apache-2.0

package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/proxy"
)

// TestOutage has a service that is not there, and then is.
func TestOutage(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	r := start(t, proxy.Config{To: target(t, address)}, nil)
	for version := 1; version <= 2; version++ {
		for range 5 {
			status, body := get(t, r.http(t, version), "https://"+r.addr)
			if status != http.StatusBadGateway || body != "Bad Gateway: the service behind this proxy is down: it refuses connections\n" {
				t.Errorf("%d %q", status, body)
			}
			if strings.Contains(body, "127.0.0.1") {
				t.Errorf("it tells of the inside: %q", body)
			}
		}
	}
	if down := r.log.lines("level=ERROR"); len(down) != 1 || !strings.Contains(down[0], "to="+address) {
		t.Errorf("%q", down)
	}
	if s := r.Stats(); s.Unreachable != 10 || !s.Down || s.Requests[5] != 10 {
		t.Errorf("%+v", s)
	}
	if l, err = net.Listen("tcp", address); err != nil {
		t.Fatal(err)
	}
	back := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = back.Serve(l) }()
	t.Cleanup(func() { _ = back.Close() })
	c := r.http(t, 1)
	until(t, "the end of the outage", func() bool {
		if status, _ := get(t, c, "https://"+r.addr); status != 200 {
			t.Errorf("%d", status)
		}
		return len(r.log.lines("answers again")) > 0
	})
	if again := r.log.lines("answers again"); len(again) != 1 || !strings.Contains(again[0], "failed=10") || r.Stats().Down {
		t.Errorf("%q", again)
	}
	if len(r.log.lines("level=ERROR")) != 1 {
		t.Errorf("%q", r.log.lines("level=ERROR"))
	}
}

// TestFailures has services that misbehave.
func TestFailures(t *testing.T) {
	for want, answer := range map[string]func(net.Conn){
		"Gateway Timeout: the service behind this proxy did not answer in time\n": func(c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
		},
		"Bad Gateway: the service behind this proxy closed the connection without an answer\n": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1000))
		},
		"Bad Gateway: the service behind this proxy gave an answer that cannot be passed on\n": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1000))
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH\r\n")
			_, _ = io.Copy(io.Discard, c)
		},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					answer(c)
				}()
			}
		}()
		r := start(t, proxy.Config{To: target(t, l.Addr().String()), AnswerTimeout: stall}, nil)
		for version := 1; version <= 2; version++ {
			if _, got := get(t, r.http(t, version), "https://"+r.addr); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		_ = l.Close()
	}
}

// TestCutAnswer has an answer that the service does not complete: the client must not take
// it for a whole one.
func TestCutAnswer(t *testing.T) {
	r := start(t, proxy.Config{}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 100_000))
		panic(http.ErrAbortHandler)
	})
	for version := 1; version <= 2; version++ {
		res, err := r.http(t, version).Get("https://" + r.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("HTTP/%d: half an answer is a whole one", version)
		}
		_ = res.Body.Close()
	}
}

// TestGone has a client that does not wait for the answer: neither does the service.
func TestGone(t *testing.T) {
	asked, ended := make(chan bool), make(chan bool)
	r := start(t, proxy.Config{}, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		<-r.Context().Done()
		ended <- true
	})
	for version := 1; version <= 2; version++ {
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.addr, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			<-asked
			cancel()
		}()
		if _, err := r.http(t, version).Do(req); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-ended
	}
	until(t, "both to be counted", func() bool { return r.Stats().Gone == 2 })
	if down := r.log.lines("behind the proxy"); len(down) > 0 {
		t.Errorf("the service is to blame: %q", down)
	}
}

// TestDrain looks at what becomes of requests and connections.
func TestDrain(t *testing.T) {
	asked, answer := make(chan bool), make(chan bool)
	r := start(t, proxy.Config{DrainDelay: time.Second, DrainTimeout: patience}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			asked <- true
			<-answer
		}
	})
	var waiting [2]chan int
	for i := range waiting {
		waiting[i] = make(chan int)
		go func() {
			res, err := r.http(t, i+1).Get("https://" + r.addr + "/wait")
			if err != nil {
				t.Error(err)
				waiting[i] <- 0
				return
			}
			_ = res.Body.Close()
			waiting[i] <- res.StatusCode
		}()
		<-asked
	}
	before := r.dial(t)
	drained := make(chan int)
	go func() { drained <- r.Drain(context.Background()) }()
	until(t, "draining", r.Draining)
	// For now there is an answer, on new connections and on old ones: the last one.
	for _, c := range []io.ReadWriter{before, r.dial(t)} {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(all), "HTTP/1.1 200") || !strings.Contains(string(all), "\r\nConnection: close\r\n") {
			t.Errorf("%q, %v", all, err)
		}
	}
	until(t, "refusal", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	for i := range waiting {
		answer <- true
		if status := <-waiting[i]; status != 200 {
			t.Errorf("HTTP/%d: %d", i+1, status)
		}
	}
	if cut := <-drained; cut != 0 {
		t.Errorf("%d were cut off", cut)
	}
}

// TestDrainCuts has requests, and a WebSocket, that do not end.
func TestDrainCuts(t *testing.T) {
	asked := make(chan bool)
	ws := echo(t)
	r := start(t, proxy.Config{DrainTimeout: stall}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			asked <- true
			<-r.Context().Done()
			return
		}
		ws(w, r)
	})
	say(t, r.webSocket(t), "hello")
	for version := 1; version <= 2; version++ {
		go func() {
			res, err := r.http(t, version).Get("https://" + r.addr + "/wait")
			if err == nil {
				defer res.Body.Close()
				if res.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("HTTP/%d: %d", version, res.StatusCode)
				}
			}
		}()
		<-asked
	}
	if cut := r.Drain(t.Context()); cut != 3 {
		t.Errorf("%d were cut off", cut)
	}
	if s := r.Stats(); s.InFlight != 0 || !s.Draining {
		t.Errorf("%+v", s)
	}
	// A WebSocket alone has its time, too, and a signal ends it.
	r = start(t, proxy.Config{DrainTimeout: patience}, ws)
	c := r.webSocket(t)
	say(t, c, "hello")
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan int)
	go func() { drained <- r.Drain(ctx) }()
	until(t, "refusal", func() bool {
		c, err := net.Dial("tcp", r.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	say(t, c, "still there")
	cancel()
	if cut := <-drained; cut != 1 {
		t.Errorf("%d were cut off", cut)
	}
}
