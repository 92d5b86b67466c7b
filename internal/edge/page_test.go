// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// ask asks the handler.
func ask(e *Edge, method, host, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	e.Handler().ServeHTTP(w, r)
	return w
}

func TestHost(t *testing.T) {
	e := New(Config{Hosts: []string{"Dev.Example.", "other.example:8443", "192.0.2.1", "[2001:db8::1]"}})
	for host, want := range map[string]int{
		"localhost":              200,
		"localhost:8443":         200,
		"LocalHost.:80":          200,
		"127.0.0.1":              200,
		"127.0.0.1:8443":         200,
		"127.250.1.2:1":          200,
		"[::1]":                  200,
		"[::1]:8443":             200,
		"dev.example":            200,
		"dev.example:1234":       200,
		"other.example":          200,
		"192.0.2.1:80":           200,
		"[2001:db8::1]:80":       200,
		"":                       403,
		".":                      403,
		":8443":                  403,
		"localhost:":             403,
		"localhost:x":            403,
		"localhost:99999":        403,
		"evil.example":           403,
		"evil.example:8443":      403,
		"localhost.evil.example": 403,
		"evil.localhost":         403,
		"127.0.0.1.evil.example": 403,
		"127.1":                  403,
		"128.0.0.1":              403,
		"10.0.0.1":               403,
		"0.0.0.0":                403,
		"[::]":                   403,
		"[::1":                   403,
		"[::1%25lo]":             403,
		"[2001:db8::2]:80":       403,
		"localhost@evil.example": 403,
	} {
		for _, path := range []string{"/", "/state", "/edge.css"} {
			if got := ask(e, "GET", host, path); got.Code != want {
				t.Errorf("%s for %q is answered %d, want %d", path, host, got.Code, want)
			}
		}
		if got := ask(e, "HEAD", host, "/events"); got.Code != want {
			t.Errorf("/events for %q is answered %d, want %d", host, got.Code, want)
		}
	}
	w := ask(e, "GET", "<b>evil.example", "/")
	if w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || !strings.Contains(w.Body.String(), `not as "<b>evil.example"`) {
		t.Errorf("the refusal is %q", w.Body)
	}
}

func TestMethodsAndPaths(t *testing.T) {
	e := New(Config{})
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"} {
		w := ask(e, method, "localhost", "/")
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s is answered %d", method, w.Code)
		}
	}
	for path, kind := range map[string]string{
		"/":         "text/html; charset=utf-8",
		"/state":    "application/json",
		"/events":   "text/event-stream",
		"/edge.css": "text/css; charset=utf-8",
		"/edge.js":  "text/javascript; charset=utf-8",
		"/icon.svg": "image/svg+xml",
	} {
		if w := ask(e, "HEAD", "localhost", path); w.Code != 200 || w.Header().Get("Content-Type") != kind {
			t.Errorf("%s is answered %d, %s", path, w.Code, w.Header().Get("Content-Type"))
		}
	}
	for _, path := range []string{"/x", "/index.html", "/page.html", "/static/edge.css", "/state/", "//", "/%2e%2e/edge.go", "/STATE"} {
		if w := ask(e, "GET", "localhost", path); w.Code != http.StatusNotFound {
			t.Errorf("%s is answered %d, want 404", path, w.Code)
		}
	}
}

func TestHeaders(t *testing.T) {
	e := New(Config{})
	for _, c := range []struct {
		method, host, path, cache string
	}{
		{"GET", "localhost", "/", "no-store"},
		{"GET", "localhost", "/state", "no-store"},
		{"HEAD", "localhost", "/events", "no-store"},
		{"GET", "localhost", "/edge.js", "no-cache"},
		{"GET", "localhost", "/none", "no-store"},
		{"POST", "localhost", "/", "no-store"},
		{"GET", "evil.example", "/", "no-store"},
	} {
		h := ask(e, c.method, c.host, c.path).Header()
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer",
			"Cache-Control":           c.cache,
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s of %s %s%s is %q, want %q", name, c.method, c.host, c.path, got, want)
			}
		}
	}
}

func TestStaticIsNotSentTwice(t *testing.T) {
	e := New(Config{})
	tag := ask(e, "GET", "localhost", "/edge.css").Header().Get("ETag")
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "/edge.css", nil)
	r.Host = "localhost"
	r.Header.Set("If-None-Match", tag)
	e.Handler().ServeHTTP(w, r)
	if w.Code != http.StatusNotModified {
		t.Errorf("it is answered %d, want 304", w.Code)
	}
}

// The page has the values of the moment, without any script.
func TestPage(t *testing.T) {
	e := New(Config{})
	if body := ask(e, "GET", "localhost", "/").Body.String(); !strings.Contains(body, "No certificate yet") {
		t.Error("the empty page does not say that it is")
	}
	for range 1234 {
		e.count(true)
	}
	e.Set(generation("dev", 6, "localhost", "127.0.0.1"))
	e.Turned(generation("dev", 7, "localhost", "127.0.0.1"))
	e.Set(generation("other", 3, "example.com"))
	hostile := generation("hostile", 1, `"><script>alert(1)</script>`)
	hostile.Issuer = "<img src=x onerror=alert(2)>"
	hostile.Serial = `' onload='alert(3)`
	e.Turned(hostile)
	body := ask(e, "GET", "localhost", "/").Body.String()
	for _, want := range []string{
		"<title>Generation 7 · Keyturn</title>", "<li>127.0.0.1</li>", ">0:42</strong>", "turns in", "example.com",
		`<span>0a0a0a0a</span>`, `<strong id="served">1,234</strong>`, "dev-6", "dev-7", "over plain HTTP/1.1", `x="56.67%"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page does not have %q", want)
		}
	}
	for _, bad := range []string{"<script>alert", "<img src=x", "onload='", "ZgotmplZ", "style="} {
		if strings.Contains(body, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	var state update
	if err := json.Unmarshal(ask(e, "GET", "localhost", "/state").Body.Bytes(), &state); err != nil {
		t.Fatal(err)
	}
	if state.Main != "dev" || len(state.Certificates) != 3 || len(state.Turns) != 2 || state.Served != 1234 {
		t.Errorf("the state is %+v", state)
	}
}

// A script may only write text.
func TestScriptWritesText(t *testing.T) {
	script, err := staticFiles.ReadFile("static/edge.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("} {
		if bytes.Contains(script, []byte(bad)) {
			t.Errorf("the script uses %s", bad)
		}
	}
}

func TestCountdown(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		from, next, to time.Duration // zero next: unknown
		want           phrase
	}{
		{-time.Minute, 42 * time.Second, 2 * time.Minute, phrase{"turns in", "0:42", false}},
		{-time.Minute, 41*time.Second + 1, 2 * time.Minute, phrase{"turns in", "0:42", false}},
		{-time.Minute, 59*time.Minute + 59*time.Second, time.Hour, phrase{"turns in", "59:59", false}},
		{-time.Minute, time.Hour, 2 * time.Hour, phrase{"turns in", "1:00:00", false}},
		{-time.Minute, 49 * time.Hour, 90 * time.Hour, phrase{"turns in", "2 days", false}},
		{-time.Minute, -time.Second, time.Hour, phrase{"turns", "now", false}},
		{-time.Minute, 0, time.Minute, phrase{"expires in", "1:00", false}},
		{-time.Minute, time.Hour, time.Minute, phrase{"expires in", "1:00", false}},
		{time.Minute, 2 * time.Minute, time.Hour, phrase{"valid in", "1:00", false}},
		{-time.Hour, -time.Minute, -5 * time.Second, phrase{"expired", "0:05 ago", true}},
	} {
		cert := Certificate{ID: "x", NotBefore: at.Add(c.from), NotAfter: at.Add(c.to)}
		if c.next != 0 {
			cert.Next = at.Add(c.next)
		}
		if got := countdown(cert, at); got != c.want {
			t.Errorf("from %v, next %v, to %v: %v, want %v", c.from, c.next, c.to, got, c.want)
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
	for serial, want := range map[string]string{"": "–", "1a2b": "1a2b", "0123456789abcdef": "01234567…"} {
		if got := short(serial); got != want {
			t.Errorf("short(%q) = %q, want %q", serial, got, want)
		}
	}
}
