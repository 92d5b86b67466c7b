// SPDX-License-Identifier: Apache-2.0

package checkin_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/checkin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// token is in every URL that is checked in at, and must be in no error.
const token = "6a1d5b0e"

var passed = time.Date(2027, 1, 31, 13, 0, 0, 0, time.FixedZone("", 3600))

// A wire is a listener in memory, so that a server and its client are in one bubble
// of synctest.
type wire struct {
	conns chan net.Conn
	done  <-chan struct{}
	close context.CancelFunc
}

func (w wire) Accept() (net.Conn, error) {
	select {
	case conn := <-w.conns:
		return conn, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w wire) Close() error   { w.close(); return nil }
func (w wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (w wire) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case w.conns <- theirs:
		return ours, nil
	case <-w.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serve starts a TLS server at https://example.com/, and returns a client that reaches
// no other.
func serve(t *testing.T, handler http.HandlerFunc) *http.Client {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	if err := server.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	down, goDown := context.WithCancel(context.Background())
	w := wire{make(chan net.Conn), down.Done(), goDown}
	server.Listener = w
	server.StartTLS()
	client := server.Client()
	client.Transport.(*http.Transport).DialContext = w.dial
	t.Cleanup(func() {
		client.CloseIdleConnections()
		server.Close()
	})
	return client
}

func newCheckIn(t *testing.T, address string, client *http.Client) *checkin.CheckIn {
	t.Helper()
	c, err := checkin.New(address, time.Hour, client)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantError fails unless the error has all parts, and not the token.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error %q has no %q", err, part)
		}
	}
	if strings.Contains(err.Error(), token) {
		t.Errorf("the error tells the URL: %q", err)
	}
}

func TestReport(t *testing.T) {
	next := passed.Add(24 * time.Hour)
	for _, c := range []struct {
		name, address string
		result        checkin.Result
		uri           string
		body          map[string]any
	}{
		{
			"good", "https://example.com/" + token,
			checkin.Result{Passed: passed, OK: true, Due: 3, Renewed: 2, Failed: 1, Next: next},
			"/" + token,
			map[string]any{"time": "2027-01-31T12:00:00Z", "ok": true, "ttl_seconds": 3600.0, "due": 3.0, "renewed": 2.0, "failed": 1.0, "next": "2027-02-01T12:00:00Z"},
		},
		{
			"failed", "https://example.com/" + token,
			checkin.Result{Passed: passed},
			"/" + token,
			map[string]any{"time": "2027-01-31T12:00:00Z", "ok": false, "ttl_seconds": 3600.0, "due": 0.0, "renewed": 0.0, "failed": 0.0},
		},
		{"suffix good", "https://example.com/" + token + "{|/fail}", checkin.Result{OK: true}, "/" + token, nil},
		{"suffix failed", "https://example.com/" + token + "{|/fail}", checkin.Result{}, "/" + token + "/fail", nil},
		{"query good", "https://example.com/{a|b}?state={complete|fail}", checkin.Result{OK: true}, "/a?state=complete", nil},
		{"query failed", "https://example.com/{a|b}?state={complete|fail}", checkin.Result{}, "/b?state=fail", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				client := serve(t, func(w http.ResponseWriter, r *http.Request) {
					requests++
					if r.Method != http.MethodPost || r.URL.RequestURI() != c.uri || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Keyturn-TTL") != "3600" {
						t.Errorf("%s %s with %v, want POST %s with JSON and 3600 seconds to live", r.Method, r.URL, r.Header, c.uri)
					}
					var body map[string]any
					if err := json.NewDecoder(r.Body).Decode(&body); err != nil || c.body != nil && !reflect.DeepEqual(body, c.body) {
						t.Errorf("the body is %v (%v), want %v", body, err, c.body)
					}
					w.WriteHeader(http.StatusNoContent)
				})
				if err := newCheckIn(t, c.address, client).Report(t.Context(), c.result); err != nil || requests != 1 {
					t.Errorf("Report = %v after %d requests, want one and no error", err, requests)
				}
			})
		})
	}
}

// What may pass is tried again, with the whole body; what cannot is not.
func TestRetry(t *testing.T) {
	for _, c := range []struct {
		name     string
		codes    []int
		requests int
		want     string // in the error; empty is none
	}{
		{"restarts", []int{502, 429, 200}, 3, ""},
		{"stays away", []int{500, 500, 503}, 3, `example.com: it answers "503 Service Unavailable"`},
		{"knows no such URL", []int{404}, 1, `example.com: it answers "404 Not Found": look at the URL`},
		{"leads nowhere", []int{304}, 1, "304 Not Modified"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				client := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if body, err := io.ReadAll(r.Body); err != nil || !json.Valid(body) {
						t.Errorf("the body is %q (%v), want JSON", body, err)
					}
					w.WriteHeader(c.codes[requests])
					requests++
				})
				start := time.Now()
				err := newCheckIn(t, "https://example.com/"+token, client).Report(t.Context(), checkin.Result{OK: true})
				if c.want == "" && err != nil {
					t.Error(err)
				} else if c.want != "" {
					wantError(t, err, c.want)
				}
				if requests != c.requests {
					t.Errorf("%d requests, want %d", requests, c.requests)
				}
				if took := time.Since(start); c.requests > 1 && took == 0 {
					t.Error("the next try came at once")
				}
			})
		})
	}
}

// A service that takes the request and says nothing holds a pass up for ten seconds, and
// one that is not there for less.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // only then a server sees that the client went away
			<-r.Context().Done()
		})
		start := time.Now()
		err := newCheckIn(t, "https://example.com/"+token, client).Report(t.Context(), checkin.Result{})
		wantError(t, err, "example.com: no answer came within 3s")
		if took := time.Since(start); took <= 9*time.Second || took > 10*time.Second {
			t.Errorf("it took %v, want three tries of three seconds in ten at most", took)
		}
	})
}

func TestNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("connection refused")
		}}}
		err := newCheckIn(t, "https://example.com/"+token, client).Report(t.Context(), checkin.Result{})
		wantError(t, err, "example.com: connection refused")
	})
}

// A service that shows a certificate of no trusted CA is not talked to.
func TestUntrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a request came") })
		client.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
		err := newCheckIn(t, "https://example.com/"+token, client).Report(t.Context(), checkin.Result{})
		wantError(t, err, "example.com: ", "certificate")
	})
}

func TestCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		requests := 0
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			requests++
			w.WriteHeader(http.StatusInternalServerError)
			time.AfterFunc(time.Millisecond, cancel) // while Report waits for its next try
		})
		err := newCheckIn(t, "https://example.com/"+token, client).Report(ctx, checkin.Result{})
		if wantError(t, err, "example.com: "); !errors.Is(err, context.Canceled) || requests != 1 {
			t.Errorf("Report = %v after %d requests, want context.Canceled after one", err, requests)
		}
	})
}

func TestRedirects(t *testing.T) {
	for _, c := range []struct {
		name, to string
		code     int
		followed bool
	}{
		{"same place", "/moved", http.StatusPermanentRedirect, true},
		{"turned into a GET", "/moved", http.StatusFound, false},
		{"other host", "https://example.net/moved", http.StatusTemporaryRedirect, false},
		{"in clear", "http://example.com/moved", http.StatusTemporaryRedirect, false},
		{"round and round", "/" + token, http.StatusTemporaryRedirect, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				followed := false
				client := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path != "/moved" {
						http.Redirect(w, r, c.to, c.code)
						return
					}
					followed = true
					if body, err := io.ReadAll(r.Body); r.Method != http.MethodPost || r.Host != "example.com" || err != nil || !json.Valid(body) {
						t.Errorf("%s at %s with %q (%v), want the POST", r.Method, r.Host, body, err)
					}
				})
				err := newCheckIn(t, "https://example.com/"+token, client).Report(t.Context(), checkin.Result{})
				if followed != c.followed || c.followed && err != nil {
					t.Errorf("followed is %t (%v), want %t", followed, err, c.followed)
				}
				if !c.followed {
					wantError(t, err, "example.com: ", "leads elsewhere", "set the URL")
				}
			})
		})
	}
}

func TestNew(t *testing.T) {
	for _, address := range []string{"https://example.com", "http://localhost:8080/a", "http://127.0.0.1/{a|b}", "http://[::1]:8080/"} {
		if _, err := checkin.New(address, time.Second, nil); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for address, want := range map[string]string{
		"":                                      "not of the form",
		token:                                   "not of the form",
		"https:///" + token:                     "not of the form",
		"https://example.com/%zz" + token:       "not of the form",
		"http://example.com/" + token:           "example.com does not start with https",
		"ftp://localhost/" + token:              "localhost does not start with https",
		"http://127.0.0.1.example.com/" + token: "does not start with https",
		"https://example.com/{state}" + token:   "{A|B}",
		"https://example.com/{a|b|c}" + token:   "{A|B}",
		"https://example.com/{a|b" + token:      "{A|B}",
		"https://{a|b}.example.com/" + token:    "one host",
		"{https|http}://example.com/" + token:   "does not start with https",
	} {
		_, err := checkin.New(address, time.Hour, nil)
		wantError(t, err, "checkin: ", want)
	}
	_, err := checkin.New("https://example.com/"+token, time.Second-1, nil)
	wantError(t, err, "checkin: ", "a second or more")
}

// The client of the caller stays as it was.
func TestClientIsCopied(t *testing.T) {
	client := &http.Client{}
	if _, err := checkin.New("https://example.com/", time.Hour, client); err != nil {
		t.Fatal(err)
	}
	if client.CheckRedirect != nil {
		t.Error("New changed the client")
	}
}
