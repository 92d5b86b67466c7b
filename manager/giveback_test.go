// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
)

// limited is a limit on the names of one certificate, and on the account.
const limited = "limits: {orders: 20/1000h, set: 5/1000h}"

// left is how many orders an issuer's account has left.
func left(t *testing.T, m *Manager) int {
	t.Helper()
	list, err := m.Limits(t.Context(), "pebble")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if l.What == LimitOrders {
			return l.Left
		}
	}
	t.Fatalf("no limit of the account in %+v", list)
	return 0
}

// TestWhatIsNotOrderedIsGivenBack: an attempt that ends before the CA has made an
// order costs nothing of what the CA allows.
func TestWhatIsNotOrderedIsGivenBack(t *testing.T) {
	_, m, ca := newACMEFleet(t, acmetest.Options{}, limited)
	c, err := m.Make(t.Context(), Request{Names: []string{"www.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	before := left(t, m)
	refuse := true
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if refuse && strings.Contains(r.URL.Path, "order") {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(`{"type": "urn:ietf:params:acme:error:unauthorized", "detail": "not today"}`)) // the client may be gone
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	for range 6 {
		if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); err == nil || !strings.Contains(err.Error(), "not today") {
			t.Fatalf("renewing while the CA refuses: %v", err)
		}
	}
	if now := left(t, m); now != before {
		t.Errorf("%d orders are left after refusals, %d were before", now, before)
	}
}

// TestWhatIsOrderedInVainIsNotGivenBack: the CA has made an order, which could not be
// written down because somebody came in between, and counts it.
func TestWhatIsOrderedInVainIsNotGivenBack(t *testing.T) {
	_, m, ca := newACMEFleet(t, acmetest.Options{}, limited)
	c := make1(t, m, "www.example.com")
	had, orders := left(t, m), 0
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			next.ServeHTTP(w, r)
			if r.URL.Path != pathNewOrder {
				return
			}
			if orders++; orders == 1 {
				if err := m.Mark(r.Context(), c.ID, event.ReasonCompromised); err != nil {
					t.Error(err)
				}
			}
		})
	})
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRekey); err != nil {
		t.Fatal(err)
	}
	if n := had - left(t, m); orders != 2 || n != orders {
		t.Errorf("%d orders are drawn of %d that the CA has made", n, orders)
	}
}

// TestARevokedCertificateIsNotHeld: it is replaced although its limit is drawn
// down to the reserve, and to nothing.
func TestARevokedCertificateIsNotHeld(t *testing.T) {
	_, m, _ := newACMEFleet(t, acmetest.Options{}, limited)
	c, err := m.Make(t.Context(), Request{Names: []string{"www.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := m.settings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := m.ledger.count(t.Context(), "pebble", newDraw(LimitSet, setOf(c.Spec.Names), set.limits["pebble"].Set, 100)); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if n := c.needs("pebble", true, now); n >= pressing {
		t.Fatalf("the need of a good certificate is %d", n)
	}
	if err := m.Mark(t.Context(), c.ID, event.ReasonCompromised); err != nil {
		t.Fatal(err)
	}
	if c, err = m.Get(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if n := c.needs("pebble", true, now); n != pressing && n != free {
		t.Errorf("the need of a compromised certificate is %d", n)
	}
	if err := m.Revoke(t.Context(), c.ID, RevokeOptions{Reason: issuer.KeyCompromise}); err != nil {
		t.Fatal(err)
	}
	if c, err = m.Get(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if n := c.needs("pebble", true, now); n != lost {
		t.Errorf("the need of a revoked certificate is %d, want %d", n, lost)
	}
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonCompromised); err != nil {
		t.Errorf("replacing a revoked certificate: %v", err)
	}
}
