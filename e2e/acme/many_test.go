// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/solvers"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver"
)

const (
	manyCertificates = 500
	manyIssuers      = 4
	// manyAtOnce is how many certificates are being made at a time.
	manyAtOnce = 48
	// mostTries is how often one certificate is asked for.
	mostTries = 10
)

// TestManyCertificates has four CAs with whims make five hundred certificates of all
// kinds. They refuse every second nonce, use authorisations again or not, take up to a
// second to look, and answer with chains of one to three intermediates, of which some
// are not the only ones. Each certificate comes of one order, whatever becomes of a try:
// an order that was begun is gone on with.
func TestManyCertificates(t *testing.T) {
	w := newWhims(t)
	var next, tries atomic.Int64
	var workers sync.WaitGroup
	for range manyAtOnce {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= manyCertificates || t.Failed() {
					return
				}
				n, err := w.make(t.Context(), i)
				tries.Add(int64(n))
				if err != nil {
					t.Errorf("certificate %d: %v", i, err)
				}
			}
		})
	}
	workers.Wait()
	list, err := w.manager.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != manyCertificates {
		t.Errorf("%d certificates are there, want %d", len(list), manyCertificates)
	}
	for _, c := range list {
		if err := w.check(c); err != nil {
			t.Errorf("%s for %q of %s: %v", c.ID, c.Spec.Names, c.Spec.Issuer, err)
		}
	}
	finalized := 0
	for _, ca := range w.cas {
		finalized += ca.Finalized()
	}
	if finalized != manyCertificates {
		t.Errorf("%d orders were finalised for %d certificates", finalized, manyCertificates)
	}
	t.Logf("%d certificates by %d tries and %d finalised orders", len(list), tries.Load(), finalized)
}

// A whims is a manager with CAs that look at one port of it for each type of challenge.
type whims struct {
	manager *manager.Manager
	cas     []*acmetest.CA
}

func newWhims(t *testing.T) *whims {
	t.Helper()
	w := new(whims)
	dns := acmetest.StartDNS(t)
	httpPort, tlsPort := freePort(t), freePort(t)
	shared := &config.Shared{
		DefaultIssuer: "ca0",
		Issuers:       make(map[string]config.Issuer),
		Solvers: map[string]config.Solver{
			"http": {Type: "http-01", Settings: map[string]string{"listen": loopback(httpPort)}},
			"tls":  {Type: "tls-alpn-01", Settings: map[string]string{"listen": loopback(tlsPort)}},
			"dns":  {Type: "exec", Settings: map[string]string{"program": "/it is acmetest.DNS"}},
		},
		Zones:     map[string][]string{".": {"http", "tls", "dns"}},
		Resolvers: []string{dns.Addr()},
	}
	for i := range manyIssuers {
		ca := acmetest.Start(t, acmetest.Options{
			DNS: dns, HTTPPort: httpPort, TLSPort: tlsPort,
			NonceReject: 50, AuthzReuse: []int{0, 50, 100, 50}[i], ChainLength: 1 + i%3, AlternateRoots: i % 3,
			ValidationDelay: time.Second,
		})
		w.cas = append(w.cas, ca)
		shared.Issuers["ca"+strconv.Itoa(i)] = config.Issuer{Type: "acme", ACME: &config.ACME{
			Directory: ca.Directory(), Roots: ca.WebRoots(), TermsAgreed: true,
		}}
	}
	w.manager = newManager(t, shared, func(name string, c config.Solver, resolvers []string) (solver.Solver, []string, error) {
		if name == "dns" {
			return dns, []string{solver.DNS01}, nil
		}
		return solvers.New(name, c, resolvers)
	})
	return w
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// newManager returns a manager on a bus in memory.
func newManager(t *testing.T, shared *config.Shared, solvers func(string, config.Solver, []string) (solver.Solver, []string, error)) *manager.Manager {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	identity, err := seal.NewIdentity()
	must(err)
	key, err := seal.GenerateKey()
	must(err)
	m, err := manager.New(manager.Config{Log: membus.New(), Identity: identity, Solvers: solvers, Logger: slog.New(slog.DiscardHandler)})
	must(err)
	must(m.Init(t.Context()))
	must(m.AddGroup(t.Context(), manager.DefaultGroup, key.Public()))
	text, err := shared.Encode()
	must(err)
	_, err = m.UpdateConfig(t.Context(), text, bus.Position{})
	must(err)
	return m
}

// wanted is the i-th: its kind follows from i.
func wanted(i int) manager.Request {
	host := fmt.Sprintf("host%d.example.com", i)
	r := manager.Request{Issuer: "ca" + strconv.Itoa(i%manyIssuers), Names: []string{host}}
	kinds := []func(){
		func() { r.Challenge = solver.HTTP01 },
		func() { r.Challenge = solver.TLSALPN01 },
		func() { r.Challenge, r.Names = solver.DNS01, []string{host, "*." + host} },
		func() { r.Challenge, r.Names = solver.HTTP01, []string{host, "127.0.0.1"} },
		func() {
			// A name that others have, too, whose authorisation may be used again.
			r.Challenge, r.Names = solver.HTTP01, []string{host, "www." + host, "shared.example.com"}
		},
		func() { r.Challenge, r.Key = solver.DNS01, issuer.ECDSAP384 },
		func() { r.Challenge, r.Names = solver.TLSALPN01, []string{host, "a." + host, "b." + host} },
	}
	kinds[i/manyIssuers%len(kinds)]()
	if i%25 == 0 {
		r.Key = issuer.RSA2048
	}
	return r
}

// make asks for a certificate until it is there, and returns how many tries that took.
func (w *whims) make(ctx context.Context, i int) (tries int, err error) {
	for tries < mostTries {
		tries++
		if _, err = w.manager.Make(ctx, wanted(i)); err == nil {
			break
		}
	}
	return tries, err
}

// check looks at what became of a certificate.
func (w *whims) check(c *manager.Managed) error {
	if c.Generation != 1 || c.Failure != nil || c.Order != nil {
		return fmt.Errorf("generation %d, failure %+v, order %+v", c.Generation, c.Failure, c.Order)
	}
	i, err := strconv.Atoi(strings.TrimPrefix(c.Spec.Issuer, "ca"))
	if err != nil {
		return err
	}
	ca := w.cas[i]
	if n := ca.Finalized(c.Spec.Names...); n != 1 {
		return fmt.Errorf("%d orders were finalised", n)
	}
	leaf, err := c.Leaf()
	if err != nil {
		return err
	}
	intermediates := x509.NewCertPool()
	for _, der := range c.Certificate.Chain[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		intermediates.AddCert(cert)
	}
	if n := len(c.Certificate.Chain) - 1; n < 1 || n > 3 {
		return fmt.Errorf("there are %d intermediates", n)
	}
	for _, name := range c.Spec.Names {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: ca.IssuerRoots(), Intermediates: intermediates, DNSName: strings.Replace(name, "*.", "any.", 1)})
		if err != nil {
			return err
		}
	}
	return nil
}
