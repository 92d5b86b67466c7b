// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/webhook"
)

const secret = "0123456789abcdef-secret"

var record = dns.Record{Name: "_acme-challenge.www.example.test", Value: "v", Zone: "example.test"}

// verify is what the package's documentation asks of a server.
func verify(r *http.Request, body []byte) error {
	at, err := strconv.ParseInt(r.Header.Get("Keyturn-Timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return errors.New("too old")
	}
	m := hmac.New(sha256.New, []byte(secret))
	m.Write([]byte(r.Header.Get("Keyturn-Timestamp") + "." + string(body)))
	sent, err := hex.DecodeString(strings.TrimPrefix(r.Header.Get("Keyturn-Signature"), "v1="))
	if err != nil || !hmac.Equal(sent, m.Sum(nil)) {
		return errors.New("not signed")
	}
	return nil
}

func provider(t *testing.T, url string, transport http.RoundTripper) *webhook.Provider {
	t.Helper()
	p, err := webhook.New(webhook.Config{URL: url, Secret: secret, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPosts(t *testing.T) {
	var got []string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || verify(r, body) != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%v, %v", err, verify(r, body))
		}
		got = append(got, r.URL.Path+" "+string(body))
		w.WriteHeader(http.StatusNoContent)
	})
	plain, tls := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer tls.Close()
	if err := provider(t, plain.URL+"/hook", nil).Present(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	r := record
	r.Zone = ""
	if err := provider(t, tls.URL+"/hook", tls.Client().Transport).CleanUp(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`/hook {"action":"present","fqdn":"_acme-challenge.www.example.test.","value":"v","zone":"example.test."}`,
		`/hook {"action":"cleanup","fqdn":"_acme-challenge.www.example.test.","value":"v"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("posted %q, want %q", got, want)
	}
}

func TestFailures(t *testing.T) {
	var calls atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it follows to another host") }))
	defer other.Close()
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		calls  int32
		want   string // "" is success
	}{
		"passing": {func(w http.ResponseWriter, _ *http.Request) {
			if calls.Load() == 1 {
				w.WriteHeader(http.StatusBadGateway)
			}
		}, 2, ""},
		"lasting": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "the zone is locked", http.StatusServiceUnavailable)
		}, 3, `503 Service Unavailable: "the zone is locked" (tried 3 times)`},
		"refusal": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no such zone", http.StatusNotFound) }, 1, `404 Not Found: "no such zone"`},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, 1, "it redirects to " + other.URL},
		"as GET": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, 1, "it redirects to"},
		"here": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/hook" {
				http.Redirect(w, r, "/moved", http.StatusPermanentRedirect)
			} else if body, err := io.ReadAll(r.Body); err != nil || verify(r, body) != nil {
				t.Error("the redirected request is not what was sent")
			}
		}, 2, ""},
		"long": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("x", 1<<20), http.StatusBadRequest)
		}, 1, "400 Bad Request"},
	} {
		t.Run(name, func(t *testing.T) {
			calls.Store(0)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				calls.Add(1)
				c.answer(w, r)
			}))
			defer s.Close()
			err := provider(t, s.URL+"/hook", nil).Present(t.Context(), record)
			if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) || len(err.Error()) > 1024) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if calls.Load() != c.calls {
				t.Errorf("called %d times, want %d", calls.Load(), c.calls)
			}
		})
	}
}

func TestEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		cancel()
	}))
	defer s.Close()
	if err := provider(t, s.URL, nil).Present(ctx, record); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestSettings(t *testing.T) {
	for _, url := range []string{"http://127.0.0.1:1/x", "http://[::1]:1", "http://localhost:1", "https://example.test/x"} {
		provider(t, url, nil)
	}
	for _, c := range []webhook.Config{
		{URL: "http://example.test", Secret: secret},
		{URL: "http://127.0.0.1.example.test", Secret: secret},
		{URL: "https://user:pass@example.test", Secret: secret},
		{URL: "ftp://localhost", Secret: secret},
		{URL: "localhost:80", Secret: secret},
		{URL: "https://example.test", Secret: "short"},
	} {
		if _, err := webhook.New(c); err == nil || strings.Contains(err.Error(), "pass@") || strings.Contains(err.Error(), "short\"") {
			t.Errorf("%s: %v", c.URL, err)
		}
	}
}
