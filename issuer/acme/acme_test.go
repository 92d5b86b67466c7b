// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/solver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, acmetest.IgnorePebble()) }

// TestConformance holds the issuer to the contract of all issuers. Names are not
// validated: addresses and names of the suite belong to nobody.
func TestConformance(t *testing.T) {
	issuertest.Run(t, func(t *testing.T) issuertest.Config {
		pebble := acmetest.Start(t, acmetest.Options{NoValidation: true})
		return issuertest.Config{
			Issuer:     open(t, pebble, func(c *acme.Config) { c.AskLifetime = true; c.Solve = solveNothing }),
			Root:       pebble.Roots()[0],
			KeyTypes:   []issuer.KeyType{issuer.ECDSAP256, issuer.ECDSAP384, issuer.RSA2048},
			SerialBits: 50, // Pebble's serial numbers have 63 bits
		}
	})
}

// configure returns a configuration for a Pebble that answers dns-01 there.
func configure(t testing.TB, pebble *acmetest.CA) acme.Config {
	t.Helper()
	account, err := acme.NewAccount()
	if err != nil {
		t.Fatal(err)
	}
	return acme.Config{
		Name: "pebble", Directory: pebble.Directory(), Roots: pebble.WebPool(), TermsAgreed: true,
		Challenge: solver.DNS01, Account: account, Solve: pebble.DNS.Solve,
		Resolvers: []string{pebble.DNS.Addr()}, Version: "1.2.3",
	}
}

func open(t testing.TB, pebble *acmetest.CA, change ...func(*acme.Config)) *acme.CA {
	t.Helper()
	c := configure(t, pebble)
	for _, f := range change {
		f(&c)
	}
	ca, err := acme.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ca.Close)
	return ca
}

func solveNothing(context.Context, solver.Challenge) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, nil
}

func newKey(t testing.TB, kt issuer.KeyType) crypto.Signer {
	t.Helper()
	key, err := kt.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t testing.TB, names ...string) *x509.CertificateRequest {
	t.Helper()
	csr, err := issuer.NewRequest(newKey(t, ""), names)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// check has the answer checked as the manager does, and by a client of the CA.
func check(t testing.TB, pebble *acmetest.CA, chain [][]byte, csr *x509.CertificateRequest) *x509.Certificate {
	t.Helper()
	leaf, err := issuer.Check(chain, csr, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	intermediates := x509.NewCertPool()
	for _, der := range chain[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pebble.IssuerRoots(), Intermediates: intermediates}); err != nil {
		t.Fatal(err)
	}
	return leaf
}

// order obtains a certificate.
func order(t testing.TB, pebble *acmetest.CA, ca *acme.CA, r issuer.OrderRequest, names ...string) *x509.Certificate {
	t.Helper()
	if r.CSR == nil {
		r.CSR = request(t, names...)
	}
	chain, err := ca.Order(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return check(t, pebble, chain, r.CSR)
}

// TestOrder has names really validated, by dns-01, wildcards too.
func TestOrder(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{NonceReject: 10, ChainLength: 3})
	ca := open(t, pebble)
	var recorded []issuer.OrderStatus
	record := func(_ context.Context, o issuer.OrderStatus) error {
		if n := pebble.Finalized(); n != len(recorded) {
			t.Errorf("%d orders are finalised before this one is recorded", n)
		}
		recorded = append(recorded, o)
		return nil
	}
	for i, names := range [][]string{{"www.example.com"}, {"*.example.com", "example.com", "a.example.org"}} {
		order(t, pebble, ca, issuer.OrderRequest{Record: record}, names...)
		if len(recorded) != i+1 || recorded[i].URL == "" || recorded[i].Status != "pending" || recorded[i].Expires.IsZero() {
			t.Fatalf("recorded: %+v", recorded)
		}
		if n := pebble.Finalized(names...); n != 1 {
			t.Errorf("%d orders for %v are finalised", n, names)
		}
	}
	for _, host := range []string{"example.com", "www.example.com", "a.example.org"} {
		if left := pebble.DNS.TXTs("_acme-challenge." + host); len(left) > 0 {
			t.Errorf("answers are left behind for %s: %q", host, left)
		}
	}
}

// A responder answers http-01.
type responder struct {
	mu      sync.Mutex
	answers map[string]solver.Challenge // by path
}

// respond starts one where the CA looks.
func respond(t testing.TB, pebble *acmetest.CA) *responder {
	t.Helper()
	r := &responder{answers: make(map[string]solver.Challenge)}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(pebble.HTTPPort)))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: r, ReadHeaderTimeout: time.Minute}}
	server.Start()
	t.Cleanup(server.Close)
	return r
}

func (r *responder) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.answers[q.URL.Path]; ok && strings.HasPrefix(q.Host, c.Name) {
		_, _ = w.Write([]byte(c.KeyAuthorization))
		return
	}
	http.NotFound(w, q)
}

func (r *responder) Solve(_ context.Context, c solver.Challenge) (func(context.Context) error, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	path := "/.well-known/acme-challenge/" + c.Token
	r.answers[path] = c
	return func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.answers, path)
		return nil
	}, nil
}

// TestIP has an address validated (RFC 8738), beside a name and a wildcard that
// needs another challenge.
func TestIP(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	web := respond(t, pebble)
	var mu sync.Mutex
	asked := make(map[string]string)
	ca := open(t, pebble, func(c *acme.Config) {
		c.Challenge = ""
		c.Solve = func(ctx context.Context, s solver.Challenge) (func(context.Context) error, error) {
			mu.Lock()
			asked[s.Name] = s.Type + " " + s.Group
			mu.Unlock()
			if s.Type == solver.DNS01 {
				return pebble.DNS.Solve(ctx, s)
			}
			return web.Solve(ctx, s)
		}
	})
	leaf := order(t, pebble, ca, issuer.OrderRequest{Group: "web"}, "127.0.0.1", "www.example.com", "*.example.net")
	if err := leaf.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{"127.0.0.1": "http-01 web", "www.example.com": "http-01 web", "example.net": "dns-01 web"} {
		if asked[name] != want {
			t.Errorf("%s was proven by %q, want %q", name, asked[name], want)
		}
	}
}

// TestUserAgent is what a CA sees of its client.
func TestUserAgent(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	var mu sync.Mutex
	agents := make(map[string]int)
	pebble.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			agents[r.UserAgent()]++
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	})
	order(t, pebble, open(t, pebble), issuer.OrderRequest{}, "www.example.com")
	if len(agents) != 1 || agents["keyturn/1.2.3"] == 0 {
		t.Errorf("%v", agents)
	}
}
