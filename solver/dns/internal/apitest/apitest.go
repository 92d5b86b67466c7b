// SPDX-License-Identifier: Apache-2.0

// Package apitest holds providers to what they do at the API of their service, of
// which each test has a server that keeps records as the service documents it.
package apitest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/dns"
)

// Zone is the zone that the service holds, Host the name in it where records
// stand, which a delegation chose: it does not begin with _acme-challenge.
const (
	Zone = "example.test"
	Host = "www.answers"
	Name = Host + "." + Zone
)

// Record returns the record that answers a key authorization.
func Record(keyAuthorization string) dns.Record {
	c := solver.Challenge{KeyAuthorization: keyAuthorization}
	return dns.Record{Name: Name, Zone: Zone, Value: c.DNSValue(), KeyAuthorization: keyAuthorization}
}

// Client returns a client whose requests for any of the hosts, by https, get to
// the handler, and others nowhere.
func Client(t *testing.T, h http.Handler, hosts ...string) *http.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Transport: redirect{t, u.Host, hosts}}
}

type redirect struct {
	t     *testing.T
	to    string
	hosts []string
}

func (r redirect) RoundTrip(q *http.Request) (*http.Response, error) {
	if q.URL.Scheme != "https" || !slices.Contains(r.hosts, q.URL.Host) {
		r.t.Errorf("a request to %s://%s", q.URL.Scheme, q.URL.Host)
	}
	q = q.Clone(q.Context())
	q.Host = q.URL.Host
	q.URL.Scheme, q.URL.Host = "http", r.to
	return http.DefaultTransport.RoundTrip(q)
}

// A Store is the TXT records of Name at a service.
type Store struct {
	mu     sync.Mutex
	values map[int]string // guarded by mu
	last   int            // guarded by mu
}

// Add adds a record and returns its number.
func (s *Store) Add(value string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values == nil {
		s.values = make(map[int]string)
	}
	s.last++
	s.values[s.last] = value
	return s.last
}

// Delete takes a record away, and reports whether it was there.
func (s *Store) Delete(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.values[id]
	delete(s.values, id)
	return ok
}

// Set makes the values all that there are.
func (s *Store) Set(values ...string) {
	s.mu.Lock()
	s.values = nil
	s.mu.Unlock()
	for _, v := range values {
		s.Add(v)
	}
}

// Values returns what there is, sorted.
func (s *Store) Values() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, v := range s.values {
		all = append(all, v)
	}
	slices.Sort(all)
	return all
}

// Run has the provider set and take away records, at once where it says that it
// keeps others, and looks each time at what the service has.
func Run(t *testing.T, p dns.Provider, s *Store) {
	t.Helper()
	one, two := Record("one.thumbprint"), Record("two.thumbprint")
	k, ok := p.(dns.Keeper)
	keeps := ok && k.KeepsOthers()
	must := func(do string, err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", do, err)
		}
		if slices.Sort(want); !slices.Equal(s.Values(), want) {
			t.Fatalf("%s: the service has %q, want %q", do, s.Values(), want)
		}
	}
	must("present one", p.Present(t.Context(), one), one.Value)
	if keeps {
		must("present two", p.Present(t.Context(), two), one.Value, two.Value)
		must("clean up one", p.CleanUp(t.Context(), one), two.Value)
	} else {
		must("clean up one", p.CleanUp(t.Context(), one))
		must("present two", p.Present(t.Context(), two), two.Value)
	}
	must("clean up two", p.CleanUp(t.Context(), two))
	nowhere := one
	nowhere.Zone = ""
	if err := p.Present(t.Context(), nowhere); err == nil {
		t.Error("a record without a zone is set")
	}
	must("present without a zone", nil)
}

// Read decodes a request's body, and fails the test if it is no such JSON.
func Read[T any](t *testing.T, r *http.Request) (v T) {
	t.Helper()
	if err := json.NewDecoder(r.Body).Decode(&v); err != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	return v
}

// Write answers with JSON.
func Write(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client sees it
}

// Authorized lets through what has the header, and fails the test otherwise.
func Authorized(t *testing.T, header, want string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get(header); got != want {
			t.Errorf("%s %s has %s %q", r.Method, r.URL, header, got)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}
