// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A stream is the reading end of the events.
type stream struct {
	t    testing.TB
	body io.ReadCloser
	in   *bufio.Scanner
}

// subscribe opens the events.
func subscribe(t testing.TB, transport http.RoundTripper, base string) *stream {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := transport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" ||
		answer.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the answer is %s with %v", answer.Status, answer.Header)
	}
	return &stream{t, answer.Body, bufio.NewScanner(answer.Body)}
}

// next returns the next event; its name is ":" for a comment and empty at the end.
func (s *stream) next() (name string, u update) {
	s.t.Helper()
	for s.in.Scan() {
		field, value, _ := strings.Cut(s.in.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case s.in.Text() == "" && name != "":
			return name, u
		case s.in.Text() == ":":
			name = ":"
		case field == "event":
			name = value
		case field == "data":
			if err := json.Unmarshal([]byte(value), &u); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	if name != "" {
		s.t.Errorf("the events end in the middle of %q", name)
	}
	return "", update{}
}

func (s *stream) want(name string) update {
	s.t.Helper()
	got, u := s.next()
	if got != name {
		s.t.Fatalf("the event is %q, want %q", got, name)
	}
	return u
}

// All that happens arrives, over both protocols, and ends with the edge.
func TestEvents(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e, l := startPiped(t)
			e.Set(generation("dev", 1, "localhost"))
			transport := transport(tls.VersionTLS13, http2)
			transport.DialContext = l.dial
			defer transport.CloseIdleConnections()

			s := subscribe(t, transport, "https://localhost")
			u := s.want("state")
			if u.Main != "dev" || u.Count != 1 || u.Served != 1 || len(u.Certificates) != 1 || u.Certificates[0].Serial != "dev-1" {
				t.Errorf("the state is %+v", u)
			}
			e.Turned(generation("dev", 2, "localhost"))
			if u = s.want("turn"); u.Turn == nil || u.Turn.OldSerial != "dev-1" || u.Turn.Serial != "dev-2" ||
				u.Turn.Handshakes != 1 || u.Served != 1 || len(u.Turn.Names) != 1 {
				t.Errorf("the turn is %+v", u)
			}
			e.Set(generation("other", 1, "example.com"))
			if u = s.want("set"); u.Certificate == nil || u.Certificate.ID != "other" || u.Count != 2 || u.Main != "dev" {
				t.Errorf("the set is %+v", u)
			}
			e.Removed("other")
			if u = s.want("removed"); u.ID != "other" || u.Count != 1 {
				t.Errorf("the removal is %+v", u)
			}

			began := time.Now()
			down := make(chan error, 1)
			go func() { down <- e.Shutdown(t.Context()) }()
			s.want("")
			if err := s.in.Err(); err != nil {
				t.Errorf("the events did not end properly: %v", err)
			}
			if err := <-down; err != nil {
				t.Error(err)
			}
			if d := time.Since(began); d > time.Second/10 {
				t.Errorf("the shutdown took %v", d)
			}
		})
	}
}

// The counters are told at most twice a second, and only when they change; when
// nothing happens, a comment is written every 15 seconds, for as long as one likes.
func TestEventsInTime(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			e, l := startPiped(t)
			transport := transport(tls.VersionTLS13, http2)
			transport.DialContext = l.dial
			defer transport.CloseIdleConnections()
			s := subscribe(t, transport, "https://localhost")
			defer s.body.Close()
			s.want("state")
			began := time.Now()
			for range 100 {
				e.count(false)
				time.Sleep(9 * time.Millisecond)
			}
			if u := s.want("handshakes"); u.Failed != 56 {
				t.Errorf("after half a second %d are told, want 56", u.Failed)
			}
			if u := s.want("handshakes"); u.Failed != 100 {
				t.Errorf("half a second later %d are told, want all 100", u.Failed)
			}
			if d := time.Since(began); d != 1004*time.Millisecond {
				t.Errorf("the second came after %v, want twice %v and until something changed", d, countsEvery)
			}
			for i := range 10 {
				s.want(":")
				if d := time.Since(began); d != time.Duration(i+1)*heartbeat {
					t.Errorf("comment %d came after %v", i, d)
				}
			}
		})
	}
}

func TestListenerBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, l := startPiped(t)
		transport := transport(tls.VersionTLS13, true)
		transport.DialContext = l.dial
		defer transport.CloseIdleConnections()
		streams := make([]*stream, 0, maxListeners)
		for range maxListeners {
			s := subscribe(t, transport, "https://localhost")
			s.want("state")
			streams = append(streams, s)
		}
		ask := func() int {
			t.Helper()
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://localhost/events", nil)
			answer, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			_ = answer.Body.Close()
			return answer.StatusCode
		}
		if got := ask(); got != http.StatusServiceUnavailable {
			t.Errorf("one more is answered %d, want 503", got)
		}
		_ = streams[0].body.Close()
		synctest.Wait()
		if got := ask(); got != http.StatusOK {
			t.Errorf("after one has left another is answered %d, want 200", got)
		}
		if err := e.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// One that does not read is dropped at once when it is too far behind; the others get
// everything. One that is only quiet and does not read is dropped after a while.
func TestSlowListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		e := New(Config{})
		server := &http.Server{Handler: e.Handler()}
		go func() { _ = server.Serve(l) }()
		defer func() {
			if err := errors.Join(e.Shutdown(context.Background()), server.Shutdown(context.Background())); err != nil {
				t.Error(err)
			}
		}()
		stuck := func() net.Conn {
			conn, _ := l.dial(t.Context(), "", "")
			if _, err := io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			return conn
		}
		transport := &http.Transport{DialContext: l.dial}
		defer transport.CloseIdleConnections()
		good := subscribe(t, transport, "http://localhost")
		defer good.body.Close()
		good.want("state")
		slow := stuck()
		synctest.Wait()
		listeners := func() int {
			synctest.Wait()
			e.hub.mu.Lock()
			defer e.hub.mu.Unlock()
			return len(e.hub.listeners)
		}
		began := time.Now()
		for range maxBacklog + 1 {
			e.Set(generation("dev", 1, "localhost"))
			good.want("set")
		}
		if n := listeners(); n != 1 {
			t.Errorf("%d listen, want that the slow one was dropped", n)
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("something waited %v for the slow one", d)
		}
		_ = slow.Close()

		slow = stuck()
		began = time.Now()
		for time.Since(began) < writeTimeout {
			good.want(":")
		}
		if n := listeners(); n != 1 {
			t.Errorf("%d listen, want that the stuck one was dropped after %v", n, writeTimeout)
		}
		_ = slow.Close()

		// A stuck one holds up a shutdown for not longer than the last write may take.
		slow = stuck()
		synctest.Wait()
		began = time.Now()
		if err := e.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > lastWrite {
			t.Errorf("the shutdown took %v", d)
		}
		_ = slow.Close()
	})
}

// So does one under TLS, which has to take its leave in addition.
func TestStuckShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, l := startPiped(t)
		conn, _ := l.dial(t.Context(), "", "")
		client := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
		if _, err := io.WriteString(client, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		if err := e.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d > 3*lastWrite {
			t.Errorf("the shutdown took %v", d)
		}
		_ = conn.Close()
	})
}
