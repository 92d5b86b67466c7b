// SPDX-License-Identifier: Apache-2.0

package status_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/status"
)

// TestBus: each reason has a line of its own, which is 1 while it is one.
func TestBus(t *testing.T) {
	s := status.New(slog.New(slog.DiscardHandler))
	mux := http.NewServeMux()
	s.Handle(mux)
	metrics := func() string {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		text, _ := io.ReadAll(w.Result().Body)
		return string(text)
	}
	if text := metrics(); strings.Contains(text, "keyturn_bus_") {
		t.Errorf("before anything was read: %s", text)
	}
	s.Bus(&bus.Durability{
		Streams: []bus.Stream{{What: "log", Entries: 7, Bytes: 70, Replicas: 3, Current: 2}},
		Reduced: []bus.Reduction{{Reason: bus.ReducedCopies}},
	})
	text := metrics()
	for _, line := range []string{
		`keyturn_bus_durability_reduced{reason="copies_missing"} 1`, `keyturn_bus_durability_reduced{reason="sync_interval"} 0`,
		`keyturn_bus_durability_reduced{reason="sync_unknown"} 0`, `keyturn_bus_durability_reduced{reason="replicas"} 0`,
		`keyturn_bus_replicas{stream="log"} 3`, `keyturn_bus_replicas_current{stream="log"} 2`,
		`keyturn_bus_entries{stream="log"} 7`, `keyturn_bus_bytes{stream="log"} 70`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q in %s", line, text)
		}
	}
}
