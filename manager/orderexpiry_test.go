// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/event"
)

// TestAnOrderThatHasExpired is tried once more: it may have become a certificate. If
// not, another one is begun, whatever the CA says of it.
func TestAnOrderThatHasExpired(t *testing.T) {
	for _, signs := range []bool{true, false} {
		t.Run(fmt.Sprint(signs), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, m := newFleet(t)
				ca := newOrderCA(t, m)
				use(t, m, ca)
				c := make1(t, m, "a.example")
				ca.set(fails(recorded, errors.New("not found")))
				for _, wait := range []time.Duration{0, 30 * time.Minute} {
					time.Sleep(wait)
					if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err == nil {
						t.Fatal("renewed")
					}
					if now := at(t, m, c.ID); now.Order == nil || now.Order.URL != "https://ca.example/order/2" {
						t.Fatalf("after %s: %+v", wait, now.Order)
					}
				}
				time.Sleep(time.Hour)
				want := "https://ca.example/order/2"
				if !signs {
					if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err == nil {
						t.Fatal("renewed")
					}
					want = "https://ca.example/order/3"
				}
				ca.set(nil)
				got, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal)
				if err != nil || got.History[1].Order != want {
					t.Errorf("renewed by %v, %v; want order %s", got, err, want)
				}
			})
		})
	}
}
