// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

// TestFaults says of each fault what comes of an order: whether asking again makes
// sense and when, what is said, and that the order is obtained once the fault is
// over.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		title   string
		options acmetest.Options
		config  func(*acme.Config)
		ready   func(*acme.CA) // before the order
		path    string
		fault   fault

		kind    string // the problem's; "" is none
		refused bool   // asking again is of no use
		ordered bool   // there is an order
		over    bool   // and nothing comes of it
		after   time.Duration
		says    string
		most    int // requests there, by which a CA is not troubled; 0 is any
	}{
		{
			title: "429 with Retry-After", path: pathNewOrder, fault: says(429, "rateLimited", "too many certificates", "Retry-After: 120"),
			kind: "rateLimited", after: 2 * time.Minute, says: "too many certificates (rateLimited): one of the CA's limits is used up", most: 1,
		},
		{
			title: "429 of a proxy", path: pathNewOrder, fault: sends(429, "text/html", "<html>slow down</html>", "Retry-After: 60"),
			after: time.Minute, says: "Too Many Requests (HTTP status 429): one of the CA's limits", most: 1,
		},
		{
			title: "Retry-After of a year", path: pathNewOrder, fault: says(429, "rateLimited", "next year", "Retry-After: 31536000"),
			kind: "rateLimited", after: acme.MaxRetryAfter, says: "next year", most: 1,
		},
		{
			title: "Retry-After of a date next century", path: pathNewOrder, fault: says(429, "rateLimited", "later", "Retry-After: Thu, 01 Jan 2126 00:00:00 GMT"),
			kind: "rateLimited", after: acme.MaxRetryAfter, says: "later", most: 1,
		},
		{
			title: "503 with Retry-After", path: pathNewOrder, fault: says(503, "serverInternal", "maintenance", "Retry-After: 3600"),
			kind: "serverInternal", after: time.Hour, says: "maintenance (serverInternal): the CA itself has a problem", most: 1,
		},
		{
			title: "500 while ordering", path: pathNewOrder, fault: sends(500, "text/plain", "oops\nlevel=error"),
			says: "oops level=error (HTTP status 500): the CA itself has a problem",
		},
		{
			title: "500 while finalising", path: pathFinalize, fault: says(500, "serverInternal", "oops"),
			kind: "serverInternal", ordered: true, says: "finalising the order at pebble: oops",
		},
		{
			title: "hang while ordering", ready: impatient, path: pathNewOrder, fault: hangs,
			says: "no answer from 127.0.0.1", most: 1,
		},
		{
			title: "hang of the directory", ready: impatient, path: pathDirectory, fault: hangs,
			says: "asking for the directory at pebble", most: 1,
		},
		{
			title: "drip", ready: impatient, path: pathAuthz, fault: drips,
			ordered: true, says: "no answer from 127.0.0.1",
		},
		{
			title: "malformed JSON", path: pathNewOrder, fault: sends(201, "application/json", `{"status": "pend`),
			says: "ordering at pebble: the answer is not JSON",
		},
		{
			title: "malformed problem", path: pathNewOrder, fault: sends(400, "application/problem+json", `{"type": `),
			says: "Bad Request (HTTP status 400)",
		},
		{
			title: "an order without an address", path: pathNewOrder, fault: changes(func(h http.Header, _ map[string]any) { h.Del("Location") }),
			says: "the answer does not name the order",
		},
		{
			title: "no ACME directory", path: pathDirectory, fault: sends(200, "text/html", `{"hello": "world"}`),
			says: "is no ACME directory",
		},
		{
			title: "no directory at all", path: pathDirectory, fault: sends(404, "text/html", `<html>`),
			says: "Not Found (HTTP status 404): it is tried again later; if it stays so, see whether the CA can be reached from here",
		},
		{
			title: "badNonce storm", path: pathNewOrder, fault: says(400, "badNonce", "unknown nonce"),
			kind: "badNonce", says: "refused ten nonces in a row", most: 10,
		},
		{
			title: "giant directory", path: pathDirectory, fault: sends(200, "application/json", strings.Repeat(" ", acme.MaxAnswer+1)),
			says: "more than 1048576 bytes", most: 1,
		},
		{
			title: "giant error", path: pathNewOrder, fault: says(400, "malformed", strings.Repeat("no ", 100000)),
			kind: "malformed", says: "no no no",
		},
		{
			title: "redirect to http", path: pathDirectory, fault: sends(302, "text/html", "", "Location: http://127.0.0.1:1/dir"),
			says: "http://127.0.0.1:1/dir is not https",
		},
		{
			title: "endless redirect", path: pathDirectory, fault: sends(302, "text/html", "", "Location: /dir"),
			says: "which is not followed", most: 10,
		},
		{
			title: "redirected order", path: pathNewOrder, fault: sends(307, "text/html", "", "Location: /order-plz"),
			says: "which is not followed",
		},
		{
			title: "addresses over http", path: pathNewOrder, fault: changes(func(_ http.Header, o map[string]any) {
				o["authorizations"] = []string{"http://127.0.0.1:1/authZ/1"}
			}),
			ordered: true, says: "http://127.0.0.1:1/authZ/1 is not https",
		},
		{
			title: "pending for ever", config: leaveAnswers, ready: func(ca *acme.CA) { ca.SetPatience(time.Millisecond) }, path: pathAuthz,
			fault:   changes(func(_ http.Header, a map[string]any) { a["status"] = "pending" }),
			ordered: true, says: "waiting for the validation of www.example.com at pebble: it is not there after",
		},
		{
			title: "processing for a year", path: pathOrder, fault: changes(func(h http.Header, o map[string]any) {
				if o["status"] == "valid" {
					o["status"] = "processing"
					h.Set("Retry-After", "31536000")
				}
			}),
			ordered: true, after: acme.MaxRetryAfter, says: "waiting for the order, which is processing, at pebble",
		},
		{
			title: "an unknown state", path: pathNewOrder, fault: changes(func(_ http.Header, o map[string]any) { o["status"] = "pondering\n" }),
			ordered: true, says: `a state that RFC 8555 does not have: "pondering "`,
		},
		{
			title: "invalid without a word", path: pathNewOrder, fault: changes(func(_ http.Header, o map[string]any) { o["status"] = "invalid" }),
			ordered: true, over: true, says: "does not say why",
		},
		{
			title: "a challenge that fails", config: func(c *acme.Config) { c.Solve = solveNothing },
			kind: "unauthorized", ordered: true, over: true, says: "proving control of www.example.com to pebble: www.example.com: No TXT records found",
		},
		{
			title: "a solver that fails", config: func(c *acme.Config) { c.Solve = solveBadly },
			ordered: true, says: "answering dns-01 for www.example.com: the zone is locked",
		},
		{
			title: "an order's address that steers terminals", path: pathNewOrder, fault: changes(func(h http.Header, _ map[string]any) {
				h.Set("Location", "https://127.0.0.1/\x9b2J")
			}),
			says: "which is no https URL",
		},
		{
			title: "an order's address elsewhere", path: pathNewOrder, fault: changes(func(h http.Header, _ map[string]any) {
				h.Set("Location", "http://169.254.169.254/latest")
			}),
			says: "http://169.254.169.254/latest, which is no https URL",
		},
		{
			title: "a token that is a path", path: pathAuthz, fault: changes(func(_ http.Header, a map[string]any) {
				for _, c := range a["challenges"].([]any) {
					c.(map[string]any)["token"] = "../../../../etc/passwd-0123456789"
				}
			}),
			ordered: true, says: "is not base64url",
		},
		{
			title: "an authorisation for another name", path: pathAuthz, fault: changes(func(_ http.Header, a map[string]any) {
				a["identifier"] = map[string]string{"type": "dns", "value": "victim.example.com"}
			}),
			ordered: true, says: "wants control of victim.example.com proven, which was not ordered",
		},
		{
			title: "a challenge that is not offered", path: pathAuthz, fault: changes(func(_ http.Header, a map[string]any) {
				a["challenges"] = a["challenges"].([]any)[:0]
			}),
			ordered: true, refused: true, says: "pebble does not take dns-01 for www.example.com; it takes nothing that Keyturn can answer",
		},
		{
			title: "a name that is never signed", options: acmetest.Options{Blocked: []string{"example.com"}},
			kind: "rejectedIdentifier", refused: true, says: "use another issuer",
		},
		{
			title: "a request that is never signed", path: pathFinalize, fault: says(400, "badCSR", "weak key"),
			kind: "badCSR", refused: true, ordered: true, over: true, says: "weak key (badCSR): the CA does not sign such a request",
		},
		{
			title: "new terms", path: pathNewOrder, fault: says(403, "userActionRequired", "the terms have changed"),
			kind: "userActionRequired", refused: true, says: "read and agreed to",
		},
		{
			title: "a deactivated account", path: pathNewOrder, fault: says(403, "unauthorized", "the account is deactivated"),
			kind: "unauthorized", refused: true, says: "the issuer needs another account",
		},
		{
			title: "a certificate that is gone", path: pathCert, fault: says(404, "malformed", "no such certificate"),
			kind: "malformed", ordered: true, over: true, says: "fetching the certificate at pebble: no such certificate",
		},
		{
			title: "no certificate in the chain", path: pathCert, fault: sends(200, "application/pem-certificate-chain", "hello"),
			ordered: true, says: "after 0 certificates comes something that is none",
		},
	} {
		t.Run(test.title, func(t *testing.T) {
			pebble := acmetest.Start(t, test.options)
			config := configure(t, pebble)
			good := config.Solve
			if test.config != nil {
				test.config(&config)
			}
			broken := true
			solve := config.Solve
			config.Solve = func(ctx context.Context, c solver.Challenge) (func(context.Context) error, error) {
				if broken {
					return solve(ctx, c)
				}
				return good(ctx, c)
			}
			ca, err := acme.New(config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(ca.Close)
			if test.path != pathDirectory { // the account is not what this is about
				registered(t, ca)
			}
			f := before(t, pebble)
			if test.ready != nil {
				test.ready(ca)
			}
			f.set(test.path, test.fault)
			csr := request(t, "www.example.com")
			chain, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr})
			if err == nil || chain != nil {
				t.Fatalf("%d certificates, %v", len(chain), err)
			}
			text := err.Error()
			t.Log(text)
			if !strings.Contains(text, test.says) || strings.ContainsAny(text, "\r\n") || len(text) > 1500 {
				t.Errorf("it says %q; want one line of some length with %q", text, test.says)
			}
			var p *issuer.Problem
			if errors.As(err, &p) && p.Kind() != test.kind || p == nil && test.kind != "" {
				t.Errorf("problem %+v, want %q", p, test.kind)
			}
			if errors.Is(err, issuer.ErrRefused) != test.refused {
				t.Errorf("refused: %v", !test.refused)
			}
			at, hinted := issuer.RetryAfter(err)
			if hinted != (test.after > 0) || hinted && (time.Until(at) > test.after || time.Until(at) < test.after-time.Minute) {
				t.Errorf("to be asked again at %s, %v; want in %s", at, hinted, test.after)
			}
			if errors.Is(err, context.DeadlineExceeded) {
				t.Error("it looks as if the caller's time was up")
			}
			var failed *issuer.OrderError
			if errors.As(err, &failed) != test.ordered || failed != nil && (failed.Over != test.over || failed.URL == "") {
				t.Errorf("order %+v; want one %v, over %v", failed, test.ordered, test.over)
			}
			if n := f.count(test.path); test.most > 0 && n > test.most {
				t.Errorf("%d requests, want %d at most", n, test.most)
			}
			if len(test.options.Blocked) > 0 {
				return
			}

			f.set(test.path, nil)
			ca.SetTimeout(time.Minute)
			ca.SetPatience(time.Minute)
			broken = false
			again := issuer.OrderRequest{CSR: csr}
			if failed != nil && !failed.Over {
				again.Resume = failed.URL
			}
			order(t, pebble, ca, again)
			if test.ordered && !test.over && (f.count(pathNewOrder) != 1 || pebble.Finalized() != 1) {
				t.Errorf("%d orders, %d finalised, want the same one", f.count(pathNewOrder), pebble.Finalized())
			}
		})
	}
}

func impatient(ca *acme.CA) { ca.SetTimeout(100 * time.Millisecond) }

// drips answers a byte at a time, without end.
func drips(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	for r.Context().Err() == nil {
		_, _ = io.WriteString(w, " ")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Millisecond):
		}
	}
	panic(http.ErrAbortHandler)
}

// leaveAnswers has answers stay, so that the CA finds them however late it looks.
func leaveAnswers(c *acme.Config) {
	solve := c.Solve
	c.Solve = func(ctx context.Context, challenge solver.Challenge) (func(context.Context) error, error) {
		_, err := solve(ctx, challenge)
		return func(context.Context) error { return nil }, err
	}
}

func solveBadly(context.Context, solver.Challenge) (func(context.Context) error, error) {
	return nil, errors.New("the zone is locked")
}

// TestFaultsThatPass are those that an order survives by itself.
func TestFaultsThatPass(t *testing.T) {
	for _, test := range []struct {
		title string
		path  string
		fault fault
	}{
		{"500 once", pathNewOrder, once(says(500, "serverInternal", "oops"))},
		{"badNonce once", pathNewOrder, once(says(400, "badNonce", "unknown nonce"))},
		{"an order that is finalised already", pathFinalize, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(discard{}, r)
			says(403, "orderNotReady", "the order is processing")(w, r, next)
		}},
		{"a validation that was asked for already", pathChallenge, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(discard{}, r)
			says(400, "malformed", "the challenge is processing")(w, r, next)
		}},
		{"an account that the CA has forgotten", pathNewOrder, once(says(400, "accountDoesNotExist", "who?"))},
		{"Retry-After while waiting", pathAuthz, changes(func(h http.Header, _ map[string]any) { h.Set("Retry-After", "1") })},
		{"a Retry-After that is none", pathAuthz, changes(func(h http.Header, _ map[string]any) { h.Set("Retry-After", "soon") })},
		{"more chains than anyone needs", pathCert, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			self := "<https://" + r.Host + r.URL.Path + ">"
			for range 100 {
				w.Header().Add("Link", self+`;rel="alternate", `+self+`;rel="up", `+self+`; rel=alternate`)
			}
			next.ServeHTTP(w, r)
		}},
	} {
		t.Run(test.title, func(t *testing.T) {
			pebble := acmetest.Start(t, acmetest.Options{})
			ca := open(t, pebble)
			f := before(t, pebble)
			f.set(test.path, test.fault)
			order(t, pebble, ca, issuer.OrderRequest{}, "www.example.com")
			if n := pebble.Finalized(); n != 1 {
				t.Errorf("%d orders are finalised", n)
			}
			if n := f.count(pathCert); n > 9 {
				t.Errorf("%d requests for chains", n)
			}
		})
	}
}

// TestWrongCertificates are answers that the check finds out, not the issuer.
func TestWrongCertificates(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{Profiles: map[string]time.Duration{"default": 90 * 24 * time.Hour}})
	ca := open(t, pebble)
	f := before(t, pebble)
	csr := request(t, "www.example.com")
	other, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com")})
	if err != nil {
		t.Fatal(err)
	}
	var text []byte
	for _, der := range other {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	for _, test := range []struct {
		title string
		fault fault
		now   time.Time
		want  error
	}{
		{"wrong key", sends(200, "application/pem-certificate-chain", string(text)), time.Now(), issuer.ErrWrongKey},
		{"expired", nil, time.Now().Add(91 * 24 * time.Hour), issuer.ErrExpired},
		{"without its intermediate", func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			seen := httptest.NewRecorder()
			next.ServeHTTP(seen, r)
			maps.Copy(w.Header(), seen.Header())
			leaf, _ := pem.Decode(seen.Body.Bytes())
			_ = pem.Encode(w, leaf)
			_ = pem.Encode(w, leaf)
		}, time.Now(), issuer.ErrBrokenChain},
	} {
		t.Run(test.title, func(t *testing.T) {
			f.set(pathCert, test.fault)
			chain, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := issuer.Check(chain, csr, test.now); !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
		})
	}
}

// TestSeveralNames has the CA's words for each name.
func TestSeveralNames(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	ca := open(t, pebble, func(c *acme.Config) {
		c.Solve = func(ctx context.Context, s solver.Challenge) (func(context.Context) error, error) {
			if s.Name == "good.example.com" {
				return pebble.DNS.Solve(ctx, s)
			}
			return solveNothing(ctx, s)
		}
	})
	_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "good.example.com", "bad.example.com", "*.bad.example.com")})
	var p *issuer.Problem
	if !errors.As(err, &p) || p.Kind() != "compound" || len(p.Parts) != 2 || !strings.Contains(err.Error(), "control of 2 of 3 names could not be proven") {
		t.Fatalf("%v: %+v", err, p)
	}
	for _, part := range p.Parts {
		if part.Name != "bad.example.com" && part.Name != "*.bad.example.com" || part.Kind() != "unauthorized" {
			t.Errorf("%+v", part)
		}
	}
}

// TestUntrusted is a CA whose web server is not known.
func TestUntrusted(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	ca := open(t, pebble, func(c *acme.Config) { c.Roots = x509.NewCertPool() })
	_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, "www.example.com")})
	if err == nil || !strings.Contains(err.Error(), "give the root of its web server as the issuer's roots") {
		t.Error(err)
	}
}
