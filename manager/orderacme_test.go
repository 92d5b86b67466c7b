// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
)

// TestARealCAThatLimits is one that answers 429 and says when to come again.
func TestARealCAThatLimits(t *testing.T) {
	_, m, ca := newACMEFleet(t, acmetest.Options{})
	c := make1(t, m, "a.example")
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/order-plz") {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(discard{w.Header()}, r) // for its nonce
			w.Header().Del("Location")
			w.Header().Set("Content-Type", "application/problem+json")
			w.Header().Set("Retry-After", "7200")
			w.WriteHeader(http.StatusTooManyRequests)
			_, _ = w.Write([]byte(`{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many certificates", "status": 429}`))
		})
	})
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err == nil || !strings.Contains(err.Error(), "too many certificates") {
		t.Fatal(err)
	}
	f := at(t, m, c.ID).Failure
	if f == nil || f.Problem == nil || f.Problem.Status != 429 || f.RetryAfter.IsZero() || f.Issuer != "pebble" {
		t.Fatalf("%+v", f)
	}
	if wait := f.Next.Sub(f.At); wait < 110*time.Minute || wait > 2*time.Hour {
		t.Errorf("tried again after %v", wait)
	}
}

// TestAnAnswerThatIsLost is that to the request to finalise: the order is gone on
// with, and its certificate is the one that is published.
func TestAnAnswerThatIsLost(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	c := make1(t, m, "a.example")
	ctx, kill := context.WithCancel(t.Context())
	var lost atomic.Bool
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/finalize-order/") && !lost.Swap(true) {
				next.ServeHTTP(discard{make(http.Header)}, r)
				kill()
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	})
	if _, err := m.Renew(ctx, c.ID, event.ReasonRenewal); err == nil {
		t.Fatal("renewed")
	}
	order := at(t, m, c.ID).Order
	if order == nil {
		t.Fatal("the order is forgotten")
	}
	got, err := f.manager(t, "").Renew(t.Context(), c.ID, event.ReasonRenewal)
	if err != nil || got.History[1].Order != order.URL {
		t.Fatal(got, err)
	}
	if n := ca.Finalized("a.example"); n != 2 {
		t.Errorf("%d orders were finalised for two generations", n)
	}
}

// TestAGenerationThatWasReplacedAlready: its order was finalised, and then dropped
// by a mark. The CA refuses to hear of the same one twice, and is told of none.
func TestAGenerationThatWasReplacedAlready(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	c := make1(t, m, "a.example")
	deaf := &sleepingBus{Log: f.log}
	other := *f
	other.log = deaf
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			if strings.Contains(r.URL.Path, "/certZ/") {
				deaf.set(true)
			}
		})
	})
	if _, err := other.manager(t, "same").Renew(t.Context(), c.ID, event.ReasonRenewal); err == nil {
		t.Fatal("renewed")
	}
	ca.Intercept(func(next http.Handler) http.Handler { return next })
	if err := m.Mark(t.Context(), c.ID, event.ReasonCompromised); err != nil {
		t.Fatal(err)
	}
	got, err := f.manager(t, "same").Renew(t.Context(), c.ID, event.ReasonRenewal)
	if err != nil || got.Generation != 2 {
		t.Fatal(got, err)
	}
	if n := ca.Finalized("a.example"); n != 3 {
		t.Errorf("%d orders were finalised, one of which nobody wants", n)
	}
}
