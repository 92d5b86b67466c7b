// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

// A CA that could choose the key authorization would have control of the name proven
// to another CA, for an account of its own (RFC 8555 section 8.1: it is the client's).
func TestKeyAuthorizationIsOwn(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	var mu sync.Mutex
	var asked []solver.Challenge
	ca := open(t, pebble, func(c *acme.Config) {
		c.Solve = func(ctx context.Context, one solver.Challenge) (func(context.Context) error, error) {
			mu.Lock()
			asked = append(asked, one)
			mu.Unlock()
			return pebble.DNS.Solve(ctx, one)
		}
	})
	before(t, pebble).set(pathAuthz, changes(func(h http.Header, authz map[string]any) {
		h.Del("Content-Length") // it is longer than Pebble's own
		challenges, _ := authz["challenges"].([]any)
		for i := range challenges {
			one := challenges[i].(map[string]any)
			if token, ok := one["token"].(string); ok {
				one["keyAuthorization"] = token + ".of-another-account"
			}
		}
	}))
	order(t, pebble, ca, issuer.OrderRequest{}, "a.example.com")
	if len(asked) != 1 || strings.HasSuffix(asked[0].KeyAuthorization, ".of-another-account") {
		t.Errorf("%+v", asked)
	}
}

// What is written down of an order is what those who read it take.
func TestOrderIsRecordedInKnownWords(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	before(t, pebble).set(pathNewOrder, changes(func(h http.Header, o map[string]any) {
		h.Del("Content-Length")
		o["status"] = strings.Repeat("pending ", 20)
	}))
	var recorded issuer.OrderStatus
	_, err := open(t, pebble).Order(t.Context(), issuer.OrderRequest{
		CSR:    request(t, "a.example.com"),
		Record: func(_ context.Context, o issuer.OrderStatus) error { recorded = o; return nil },
	})
	if err == nil || recorded.URL == "" || recorded.Status != "" {
		t.Errorf("%+v, %v", recorded, err)
	}
}

// An account's address is written down, shown, and a part of all that is signed.
func TestAccountHasAnAddress(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	before(t, pebble).set(pathAccount, changes(func(h http.Header, _ map[string]any) {
		h.Set("Location", "https://127.0.0.1/\x9b2J")
	}))
	a, err := open(t, pebble).Register(t.Context())
	if err == nil || !strings.Contains(err.Error(), "which is no https URL") || strings.Contains(err.Error(), "\x9b") {
		t.Errorf("%v, %v", a, err)
	}
}
