// SPDX-License-Identifier: Apache-2.0

package status_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
)

func ask(t *testing.T, s *status.Status, method, path string) (int, string) {
	t.Helper()
	mux := http.NewServeMux()
	s.Handle(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w.Code, w.Body.String()
}

func TestReadiness(t *testing.T) {
	s := status.New(slog.New(slog.DiscardHandler))
	var down error
	s.Add(status.Part{Name: "bus", Check: func() error { return down }})
	s.Add(status.Part{Name: "replica", Check: func() error { return nil }})
	if code, body := ask(t, s, "GET", "/readyz"); code != http.StatusOK || body != "bus: ok\nreplica: ok\n" {
		t.Error(code, body)
	}
	down = errors.New("not connected")
	if code, body := ask(t, s, "GET", "/readyz"); code != http.StatusServiceUnavailable || body != "bus: not ready: not connected\nreplica: ok\n" {
		t.Error(code, body)
	}
	if code, _ := ask(t, s, "GET", "/healthz"); code != http.StatusOK {
		t.Error("a process that runs is healthy, whatever its parts are:", code)
	}
	if code, _ := ask(t, s, "POST", "/healthz"); code != http.StatusMethodNotAllowed {
		t.Error(code)
	}
}

func TestCertificates(t *testing.T) {
	s := status.New(slog.New(slog.DiscardHandler))
	at := time.Unix(1_800_000_000, 0)
	c := &manager.Managed{
		State: event.State{
			ID: "AAAAAAAAAAA", Spec: event.Spec{Group: "web", Issuer: "internal"},
			Version: event.Version{Epoch: 1, Generation: 3},
			Failure: &event.Failure{Attempts: 2, At: at.Add(-time.Minute), Next: at},
		},
		Certificate: &event.Certificate{NotBefore: at.Add(-time.Hour), NotAfter: at.Add(time.Hour)},
	}
	s.Changed(c)
	const labels = `{group="web",issuer_name="internal",name="AAAAAAAAAAA"}`
	_, body := ask(t, s, "GET", "/metrics")
	for _, want := range []string{
		"keyturn_certificate_generation" + labels + " 3\n",
		"keyturn_certificate_failed_attempts" + labels + " 2\n",
		"keyturn_certificate_renewal_timestamp_seconds" + labels + " 1.8e+09\n",
		"keyturn_certificate_expiration_timestamp_seconds" + labels + " 1.8000036e+09\n",
		`keyturn_certificate_ready_status{condition="False",group="web",issuer_name="internal",name="AAAAAAAAAAA"} 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("without %s", want)
		}
	}
	removed := *c
	removed.Removed = true
	s.Changed(&removed)
	if _, body := ask(t, s, "GET", "/metrics"); strings.Contains(body, "AAAAAAAAAAA") {
		t.Error("a removed certificate is still told of")
	}
}
