// SPDX-License-Identifier: Apache-2.0

package status_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
)

// TestIssuers follows one certificate from its second generation to its third, by
// an issuer that stands in.
func TestIssuers(t *testing.T) {
	s := status.New(slog.New(slog.DiscardHandler))
	at := time.Unix(1_800_000_000, 0)
	c := manager.Managed{State: event.State{
		ID: "AAAAAAAAAAA", Spec: event.Spec{Group: "web", Issuer: "first"}, Version: event.Version{Epoch: 1, Generation: 2},
		Failure: &event.Failure{Attempts: 1, At: at, Issuer: "first"}, History: []event.Record{{Issuer: "first"}},
	}}
	change := func(f func(*manager.Managed)) {
		next := c
		f(&next)
		c = next
		s.Changed(&next)
	}
	change(func(*manager.Managed) {}) // from before the start
	change(func(c *manager.Managed) {
		c.Order = &event.Order{Issuer: "first", URL: "https://ca.example/1", Status: "pending"}
	})
	change(func(c *manager.Managed) {
		c.Order = &event.Order{Issuer: "first", URL: "https://ca.example/1", Status: "ready"}
	})
	change(func(c *manager.Managed) {
		c.Failure, c.Order = &event.Failure{Attempts: 2, At: at.Add(time.Hour), Issuer: "first"}, nil
	})
	change(func(c *manager.Managed) { c.Hold = &event.Hold{Until: at} })
	change(func(c *manager.Managed) { c.Pause = &event.Pause{At: at} })
	const labels = `{group="web",issuer_name="first",name="AAAAAAAAAAA"}`
	tells(t, s, "keyturn_certificate_held"+labels+" 1\n", "keyturn_certificate_paused"+labels+" 1\n")
	if due, failed, _ := s.Due(at.Add(1000 * time.Hour)); due != 0 || failed != 0 {
		t.Errorf("%d are due, %d failed, while it is paused", due, failed)
	}
	change(func(c *manager.Managed) {
		c.Order = &event.Order{Issuer: "second", URL: "https://other.example/1"}
	})
	change(func(c *manager.Managed) {
		c.Failure, c.Hold, c.Pause, c.Order = nil, nil, nil, nil
		c.Generation, c.History = 3, append(c.History, event.Record{Issuer: "second"})
	})
	tells(
		t, s, "keyturn_certificate_held"+labels+" 0\n", "keyturn_certificate_paused"+labels+" 0\n",
		`keyturn_issuer_acme_orders_total{issuer_name="first"} 1`, `keyturn_issuer_acme_orders_total{issuer_name="second"} 1`,
		`keyturn_issuer_failures_total{issuer_name="first"} 1`, `keyturn_issuer_certificates_total{issuer_name="second"} 1`,
	)
	if _, body := ask(t, s, "GET", "/metrics"); strings.Contains(body, `keyturn_issuer_certificates_total{issuer_name="first"}`) {
		t.Error("what was there before the start is counted")
	}
}

func tells(t *testing.T, s *status.Status, lines ...string) {
	t.Helper()
	_, body := ask(t, s, "GET", "/metrics")
	for _, want := range lines {
		if !strings.Contains(body, want) {
			t.Errorf("without %s", want)
		}
	}
}
