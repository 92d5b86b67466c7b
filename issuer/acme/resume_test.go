// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
)

// TestResume stops orders in every state, and has another process go on with them.
func TestResume(t *testing.T) {
	down := says(http.StatusInternalServerError, "serverInternal", "down")
	for _, test := range []struct {
		state string
		path  string // where the CA is down
	}{
		{"pending", pathAuthz},
		{"validation asked for", pathChallenge},
		{"ready", pathFinalize},
		{"valid", pathCert},
	} {
		t.Run(test.state, func(t *testing.T) {
			pebble := acmetest.Start(t, acmetest.Options{})
			f := before(t, pebble)
			config := configure(t, pebble)
			first, err := acme.New(config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(first.Close)
			f.set(test.path, down)
			csr := request(t, "www.example.com", "*.example.com")
			url := failing(t, first, csr, "")
			f.set(test.path, nil)

			config.Account = first.Known()
			second, err := acme.New(config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(second.Close)
			recorded := false
			order(t, pebble, second, issuer.OrderRequest{CSR: csr, Resume: url, Record: func(context.Context, issuer.OrderStatus) error {
				recorded = true
				return nil
			}})
			if n := f.count(pathNewOrder); n != 1 || recorded || pebble.Finalized() != 1 {
				t.Errorf("%d orders, recorded again %v, %d finalised", n, recorded, pebble.Finalized())
			}
		})
	}
}

// TestResumeBehindAGateway: what is on the way to the CA, and answers in its place,
// ends no order, which is finalised by then.
func TestResumeBehindAGateway(t *testing.T) {
	blank := `{"type": "about:blank", "title": "Not Found", "status": 404}`
	for _, test := range []struct {
		title string
		path  string
		fault fault
		says  string
	}{
		{"forbids", pathOrder, sends(http.StatusForbidden, "text/html", "<html>"), "Forbidden (HTTP status 403): "},
		{"wants to know who asks", pathOrder, sends(http.StatusUnauthorized, "text/html", "<html>"), "Unauthorized (HTTP status 401): "},
		{"does not find the order", pathOrder, sends(http.StatusNotFound, "text/html", "<html>"), "Not Found (HTTP status 404): "},
		{"says that it is gone", pathOrder, sends(http.StatusGone, "text/plain", ""), "Gone (HTTP status 410): "},
		{"says so in a problem document", pathOrder, sends(http.StatusNotFound, "application/problem+json", blank), "Not Found (HTTP status 404): "},
		{"has a problem without a type", pathOrder, sends(http.StatusNotFound, "application/problem+json", "{}"), "HTTP status 404): "},
		{"does not find the certificate", pathCert, sends(http.StatusNotFound, "text/html", "<html>"), "Not Found (HTTP status 404): "},
		{"has another idea of the certificate", pathCert, sends(http.StatusGone, "application/problem+json", blank), "Not Found (HTTP status 404): "},
	} {
		t.Run(test.title, func(t *testing.T) {
			pebble := acmetest.Start(t, acmetest.Options{})
			f := before(t, pebble)
			ca := open(t, pebble)
			csr := request(t, "www.example.com")
			f.set(pathCert, says(503, "serverInternal", "down"))
			url := failing(t, ca, csr, "")
			f.set(pathCert, nil)
			f.set(test.path, test.fault)
			_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr, Resume: url})
			var failed *issuer.OrderError
			if !errors.As(err, &failed) || failed.Over || failed.URL != url || errors.Is(err, issuer.ErrRefused) {
				t.Fatal(err)
			}
			if says := test.says + "it is tried again later"; !strings.Contains(err.Error(), says) {
				t.Errorf("it says %q, want %q", err, says)
			}
			f.set(test.path, nil)
			order(t, pebble, ca, issuer.OrderRequest{CSR: csr, Resume: url})
			if n := f.count(pathNewOrder); n != 1 || pebble.Finalized() != 1 {
				t.Errorf("%d orders, %d finalised", n, pebble.Finalized())
			}
		})
	}
}

// failing orders in vain and returns the order's URL, which stays good.
func failing(t *testing.T, ca *acme.CA, csr *x509.CertificateRequest, resume string) string {
	t.Helper()
	recorded := ""
	chain, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr, Resume: resume, Record: func(_ context.Context, o issuer.OrderStatus) error {
		recorded = o.URL
		return nil
	}})
	var failed *issuer.OrderError
	if !errors.As(err, &failed) || failed.Over || failed.URL != recorded || chain != nil {
		t.Fatalf("recorded %q: %v", recorded, err)
	}
	return recorded
}

// TestResumeProcessing has the answer to the finalisation get lost, and the CA
// still at work afterwards.
func TestResumeProcessing(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	ca := open(t, pebble)
	f.set(pathFinalize, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(discard{}, r)
		says(http.StatusInternalServerError, "serverInternal", "lost")(w, r, next)
	})
	csr := request(t, "www.example.com")
	url := failing(t, ca, csr, "")
	f.set(pathOrder, once(changes(func(_ http.Header, o map[string]any) {
		o["status"] = "processing"
		delete(o, "certificate")
	})))
	order(t, pebble, ca, issuer.OrderRequest{CSR: csr, Resume: url})
	if pebble.Finalized() != 1 || f.count(pathNewOrder) != 1 {
		t.Errorf("%d finalised of %d orders", pebble.Finalized(), f.count(pathNewOrder))
	}
}

type discard struct{}

func (discard) Header() http.Header         { return make(http.Header) }
func (discard) Write(b []byte) (int, error) { return len(b), nil }
func (discard) WriteHeader(int)             {}

// TestResumeInVain begins a new order where the old one is none any more.
func TestResumeInVain(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	f := before(t, pebble)
	csr := request(t, "www.example.com")
	ca, other := open(t, pebble), open(t, pebble)
	for _, test := range []struct {
		state string
		url   func(t *testing.T) string
	}{
		{"invalid", func(t *testing.T) string {
			broken := open(t, pebble, func(c *acme.Config) { c.Account, c.Solve = registered(t, ca), solveNothing })
			_, err := broken.Order(t.Context(), issuer.OrderRequest{CSR: csr})
			var failed *issuer.OrderError
			if !errors.As(err, &failed) || !failed.Over {
				t.Fatal(err)
			}
			return failed.URL
		}},
		{"unknown", func(*testing.T) string {
			f.set(pathOrder+"none", says(http.StatusNotFound, "malformed", "No order for ID none")) // as Boulder; Pebble has no words for it
			return strings.TrimSuffix(pebble.Directory(), pathDirectory) + pathOrder + "none"
		}},
		{"another account's", func(t *testing.T) string { return begun(t, other, csr) }},
		{"for other names", func(t *testing.T) string { return begun(t, ca, request(t, "www.example.com", "example.com")) }},
	} {
		t.Run(test.state, func(t *testing.T) {
			old, recorded := test.url(t), ""
			order(t, pebble, ca, issuer.OrderRequest{CSR: csr, Resume: old, Record: func(_ context.Context, o issuer.OrderStatus) error {
				recorded = o.URL
				return nil
			}})
			if recorded == "" || recorded == old {
				t.Errorf("recorded %q, in the place of %q", recorded, old)
			}
		})
	}
}

func registered(t *testing.T, ca *acme.CA) *acme.Account {
	t.Helper()
	a, err := ca.Register(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// begun returns the URL of an order that was not gone on with, because it could not
// be recorded.
func begun(t *testing.T, ca *acme.CA, csr *x509.CertificateRequest) (url string) {
	t.Helper()
	unrecorded := errors.New("the disk is full")
	_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr, Record: func(_ context.Context, o issuer.OrderStatus) error {
		url = o.URL
		return unrecorded
	}})
	if !errors.Is(err, unrecorded) {
		t.Fatal(err)
	}
	return url
}
