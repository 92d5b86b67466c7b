// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/acme/autocert"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/acme"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/stepca"
	"github.com/keyturn/keyturn/issuer"
)

// TestAutocertCache keeps everything in autocert's own cache, which two processes share.
func TestAutocertCache(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	c := configFor(t, ca, name)
	c.Dir, c.Cache = "", autocert.DirCache(t.TempDir())
	if _, err := c.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "CacheMiss") {
		t.Errorf("without CacheMiss: %v", err)
	}
	c.CacheMiss = autocert.ErrCacheMiss
	one := open(t, c, port(ca))
	wait(t, one)
	two := open(t, c, "")
	wait(t, two)
	if !one.Status().NotAfter.Equal(two.Status().NotAfter) || ca.Finalized() != 1 {
		t.Errorf("%d certificates for one cache", ca.Finalized())
	}
	for _, s := range []*acme.Server{one, two} { // the second one finds that of the first
		if err := s.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if ca.Finalized() != 2 {
		t.Errorf("%d certificates after a renewal", ca.Finalized())
	}
}

// TestHTTP01 answers on the plain port, of the Server and of the program.
func TestHTTP01(t *testing.T) {
	for _, own := range []bool{true, false} {
		ca := acmetest.Start(t, acmetest.Options{})
		c := configFor(t, ca, name)
		c.Challenge = "http-01"
		plain := net.JoinHostPort("127.0.0.1", strconv.Itoa(ca.HTTPPort))
		if own {
			c.HTTPAddr = plain
		}
		s := open(t, c, "")
		if !own {
			l, err := net.Listen("tcp", plain)
			if err != nil {
				t.Fatal(err)
			}
			server := &http.Server{Handler: s.HTTPHandler(nil)}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				_ = server.Serve(l) // Close ends it
			}()
			t.Cleanup(func() {
				_ = server.Close() // nothing is under way
				<-ended
			})
		}
		wait(t, s)
		if ca.Finalized(name) != 1 {
			t.Errorf("%d certificates", ca.Finalized(name))
		}
		for host, want := range map[string]string{name: "https://" + name + "/a?b=c", name + ":80": "https://" + name + "/a?b=c", "evil.example": ""} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+plain+"/a?b=c", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := new(http.Transport).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close() // a redirect's
			if got := resp.Header.Get("Location"); got != want {
				t.Errorf("%s is redirected to %q, want %q", host, got, want)
			}
		}
	}
}

// TestAddress has a certificate for an address, which clients send no name for.
func TestAddress(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	c := configFor(t, ca, "127.0.0.1")
	c.Key = issuer.RSA2048
	open(t, c, port(ca))
	leaf := mustDial(t, port(ca), "127.0.0.1", ca)
	if leaf.PublicKeyAlgorithm != x509.RSA {
		t.Errorf("the key is %v", leaf.PublicKeyAlgorithm)
	}
}

// TestMutualTLS answers the CA although clients need certificates.
func TestMutualTLS(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	s := open(t, configFor(t, ca, name), "")
	identity, err := keyturn.SelfSigned("client")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(identity.Leaf)
	var trust keyturn.Trust
	trust.SetClientAuth(tls.RequireAndVerifyClientCert)
	trust.SetClientCAs(pool)
	l, err := net.Listen("tcp", port(ca))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, tls.NewListener(l, trust.ServerConfig(s.TLSConfig())))
	wait(t, s)
	conn, err := tls.Dial("tcp", port(ca), &tls.Config{ServerName: name, RootCAs: ca.IssuerRoots(), Certificates: []tls.Certificate{identity}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || !bytes.HasSuffix(text, []byte("HTTP/1.0")) {
		t.Errorf("%q, %v", text, err)
	}
}

// TestRecall replaces a certificate of months an hour after it came when the CA wants it
// gone, and the one after that not so soon again.
func TestRecall(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "renewal") {
				_, _ = io.WriteString(w, `{"suggestedWindow": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}}`) // a failure shows below
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	s := open(t, configFor(t, ca, name), port(ca))
	wait(t, s)
	for i, want := range []time.Duration{time.Hour, 90 * 24 * time.Hour / 50} {
		if i > 0 {
			if err := s.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "what the CA says", func() bool { return !s.Status().WindowEnd.IsZero() })
		st := s.Status()
		if got := st.Due.Sub(st.NotBefore); got < want-time.Minute || got > want+time.Minute {
			t.Errorf("due %v after it came, want %v", got, want)
		}
	}
}

// TestRenewalInformation renews when the CA says, and tells it what is replaced.
func TestRenewalInformation(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{Profiles: map[string]time.Duration{"default": 90 * time.Second}})
	start := time.Now().Add(-time.Minute).UTC()
	var replacing atomic.Int64
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.Contains(r.URL.Path, "renewal"): // at once
				_ = json.NewEncoder(w).Encode(map[string]any{
					"suggestedWindow": map[string]time.Time{"start": start, "end": start.Add(time.Second)},
					"explanationURL":  "https://example.com/why",
				})
				return
			case strings.HasPrefix(r.URL.Path, "/order-plz") && asksToReplace(t, r):
				replacing.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	s := open(t, configFor(t, ca, name), port(ca))
	wait(t, s)
	eventually(t, "the CA's explanation", func() bool { return s.Status().Explanation == "https://example.com/why" })
	eventually(t, "two renewals", func() bool { return ca.Finalized() > 2 })
	if replacing.Load() < 2 {
		t.Errorf("%d orders say what they replace", replacing.Load())
	}
}

// asksToReplace reads the order in a signed request, and leaves it in place.
func asksToReplace(t *testing.T, r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var jws struct{ Payload string }
	if err := json.Unmarshal(body, &jws); err != nil {
		t.Error(err)
	}
	text, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		t.Error(err)
	}
	var order struct{ Replaces string }
	if err := json.Unmarshal(text, &order); err != nil {
		t.Error(err)
	}
	return order.Replaces != ""
}

// TestRenewBefore renews by the rule where the CA does not say when.
func TestRenewBefore(t *testing.T) {
	const day = 24 * time.Hour
	for before, left := range map[time.Duration]time.Duration{0: 30 * day, 60 * day: 60 * day, 90 * day: 30 * day} {
		ca := acmetest.Start(t, acmetest.Options{})
		withoutRenewalInfo(ca)
		c := configFor(t, ca, name)
		c.RenewBefore = before
		s := open(t, c, port(ca))
		wait(t, s)
		st := s.Status()
		if got := st.NotAfter.Sub(st.Due); got < left-time.Minute || got > left+90*day/50+time.Minute {
			t.Errorf("RenewBefore %v: due %v before the end", before, got)
		}
	}
}

// withoutRenewalInfo makes the CA fail when it is asked when to renew: Pebble's windows
// are made for certificates of weeks.
func withoutRenewalInfo(ca *acmetest.CA) {
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "renewal") {
				http.Error(w, "not today", http.StatusInternalServerError)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
}

// TestStepCA has another CA, which has neither renewal information nor profiles.
func TestStepCA(t *testing.T) {
	dns := acmetest.StartDNS(t)
	ca := stepca.Start(t, stepca.Options{DNS: dns.Addr(), Lifetime: 6 * time.Minute})
	c := acme.Config{
		Names: []string{name, other}, Directory: ca.Directory(), Roots: ca.IssuerRoots(), TermsAgreed: true,
		Resolvers: []string{dns.Addr()}, Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(ca.TLSPort))
	s := open(t, c, address)
	wait(t, s)
	if _, err := dial(t, address, other, ca.IssuerRoots()); err != nil {
		t.Error(err)
	}
	if err := s.Renew(t.Context()); err != nil {
		t.Error(err)
	}
	if st := s.Status(); !st.WindowStart.IsZero() || time.Until(st.Due) < time.Minute {
		t.Errorf("%+v", st)
	}
}
