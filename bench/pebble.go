// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/mholt/acmez/v3"
	acmezacme "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

// startPebble starts a real CA in this process, which looks at no answers. done ends
// it.
func startPebble() (ca *acmetest.CA, done func(), err error) {
	t := new(stage)
	if err := t.do(func() { ca = acmetest.Start(t, acmetest.Options{NoValidation: true}) }); err != nil {
		t.end()
		return nil, nil, fmt.Errorf("starting Pebble: %w", err)
	}
	ca.Intercept(hideRenewalInfo)
	return ca, t.end, nil
}

// A stage stands where the CA has a test: it ends with that. It has what the CA asks
// of a test, and nothing else.
type stage struct {
	testing.TB
	ends []func()
	err  error
}

func (t *stage) Helper()          {}
func (t *stage) Cleanup(f func()) { t.ends = append(t.ends, f) }

// Fatal ends the goroutine, as that of a test does.
func (t *stage) Fatal(why ...any) {
	t.err = errors.New(fmt.Sprint(why...))
	runtime.Goexit()
}

// do returns when f has, or has called Fatal.
func (t *stage) do(f func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	return t.err
}

func (t *stage) end() {
	for _, f := range slices.Backward(t.ends) {
		f()
	}
}

// hideRenewalInfo takes renewal information from the directory, so that no order says
// what it replaces: Pebble fails to find one in 256 of its own serial numbers.
func hideRenewalInfo(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wfe.DirectoryPath {
			next.ServeHTTP(w, r)
			return
		}
		seen := httptest.NewRecorder()
		next.ServeHTTP(seen, r)
		directory := make(map[string]any)
		if err := json.Unmarshal(seen.Body.Bytes(), &directory); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		delete(directory, "renewalInfo")
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(directory) // to a client that has gone
	})
}

// A client is a way to the CA without a manager: it makes a key and obtains a
// certificate for a name.
type client interface {
	obtain(name string) error
	close()
}

// bare is Keyturn's own issuer.
type bare struct{ *acme.CA }

// newBare returns one with an account of its own. poll is nil for the issuer's own way
// to wait.
func newBare(ca *acmetest.CA, poll func(time.Duration) time.Duration) (*bare, error) {
	account, err := acme.NewAccount()
	if err != nil {
		return nil, err
	}
	own, err := acme.New(acme.Config{
		Name: "pebble", Directory: ca.Directory(), Roots: ca.WebPool(), TermsAgreed: true, Account: account,
		Challenge: solver.DNS01, Solve: solveNothing, Resolvers: []string{ca.DNS.Addr()}, Poll: poll,
	})
	return &bare{own}, err
}

func (c *bare) obtain(name string) error {
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		return err
	}
	csr, err := issuer.NewRequest(key, []string{name})
	if err != nil {
		return err
	}
	_, err = c.Order(context.Background(), issuer.OrderRequest{CSR: csr})
	return err
}

func (c *bare) close() { c.Close() }

// solveNothing answers no challenge, for a CA that does not look.
func solveNothing(context.Context, solver.Challenge) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, nil
}

// nobody is solveNothing as a solver.
type nobody struct{}

func (nobody) Solve(ctx context.Context, c solver.Challenge) (func(context.Context) error, error) {
	return solveNothing(ctx, c)
}

// peer is acmez by itself, as its README has it.
type peer struct {
	acmez.Client
	transport *http.Transport
	account   acmezacme.Account
}

// newPeer returns one with an account of its own that looks so often at what it waits
// for; 0 is acmez's own interval.
func newPeer(ca *acmetest.CA, poll time.Duration) (*peer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	c := &peer{transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.WebPool()}, MaxIdleConnsPerHost: atOnce}}
	c.Client = acmez.Client{
		Client:           &acmezacme.Client{Directory: ca.Directory(), HTTPClient: &http.Client{Transport: c.transport}, PollInterval: poll},
		ChallengeSolvers: map[string]acmez.Solver{acmezacme.ChallengeTypeDNS01: nothing{}},
	}
	c.account, err = c.NewAccount(context.Background(), acmezacme.Account{TermsOfServiceAgreed: true, PrivateKey: key})
	return c, err
}

func (c *peer) obtain(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := acmez.NewCSR(key, []string{name})
	if err != nil {
		return err
	}
	order, err := acmez.OrderParametersFromCSR(c.account, csr)
	if err != nil {
		return err
	}
	_, err = c.ObtainCertificate(context.Background(), order)
	return err
}

func (c *peer) close() { c.transport.CloseIdleConnections() }

// nothing is solveNothing for acmez.
type nothing struct{}

func (nothing) Present(context.Context, acmezacme.Challenge) error { return nil }
func (nothing) CleanUp(context.Context, acmezacme.Challenge) error { return nil }
