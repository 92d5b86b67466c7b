// SPDX-License-Identifier: Apache-2.0

// Package status serves what monitoring asks a keyturn process: /metrics in
// Prometheus' format, /healthz, and /readyz with one line for each part.
//
// The metrics of certificates have the names and meanings of cert-manager's,
// with the prefix keyturn_ and the labels name (the managed id), group and
// issuer_name. Times are Unix seconds.
package status

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/manager"
)

// A Part is something that must work for the process to be ready.
type Part struct {
	Name string
	// Check returns nil, or why the part is not ready. It must not wait.
	Check func() error
}

// Status collects and serves. Its methods may be called at once.
type Status struct {
	registry *prometheus.Registry
	logger   *slog.Logger
	issuers  *issuerCounters

	mu    sync.Mutex
	parts []Part                      // guarded by mu
	certs map[string]*manager.Managed // guarded by mu
	bus   *bus.Durability             // guarded by mu; nil until it was read
}

// New returns a Status with the metrics of the Go runtime and the process.
func New(logger *slog.Logger) *Status {
	s := &Status{registry: prometheus.NewRegistry(), logger: logger, certs: make(map[string]*manager.Managed)}
	s.issuers = newIssuerCounters(s.registry)
	s.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		(*certificates)(s),
		(*busMetrics)(s),
	)
	return s
}

// Add adds a part to /readyz.
func (s *Status) Add(p Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parts = append(s.parts, p)
}

// Changed takes the newest state of a managed certificate.
func (s *Status) Changed(c *manager.Managed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issuers.changed(s.certs[c.ID], c)
	if c.Removed {
		delete(s.certs, c.ID)
		return
	}
	s.certs[c.ID] = c
}

// Due returns how many certificates are overdue, how many of all could not be
// renewed at the last attempt, and when the next one is due. What is paused is
// neither.
func (s *Status) Due(now time.Time) (due, failed int, next time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.certs {
		if c.Pause != nil {
			continue
		}
		at := c.RenewAt()
		if at.Before(now) {
			due++
		}
		if c.Failure != nil {
			failed++
		}
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return due, failed, next
}

// Counter adds a counter that is read when it is asked for.
func (s *Status) Counter(name, help string, labels map[string]string, value func() float64) {
	s.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, value))
}

// Handle adds /metrics, /healthz and /readyz to mux.
func (s *Status) Handle(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(s.logger.Handler(), slog.LevelWarn)}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", s.readyz)
}

func (s *Status) readyz(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	parts := s.parts
	s.mu.Unlock()
	code, text := http.StatusOK, ""
	for _, p := range parts {
		if err := p.Check(); err != nil {
			code = http.StatusServiceUnavailable
			text += fmt.Sprintf("%s: not ready: %v\n", p.Name, err)
		} else {
			text += p.Name + ": ok\n"
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprint(w, text)
}

var certificateLabels = []string{"name", "group", "issuer_name"}

func certificateDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_certificate_"+name, help, append(certificateLabels, labels...), nil)
}

var (
	descExpiration = certificateDesc("expiration_timestamp_seconds", "When the newest generation ends.")
	descRenewal    = certificateDesc("renewal_timestamp_seconds", "When the next generation is due; what the CA says, back-off and holds included.")
	descNotBefore  = certificateDesc("not_before_timestamp_seconds", "When the newest generation begins.")
	descNotAfter   = certificateDesc("not_after_timestamp_seconds", "When the newest generation ends.")
	descGeneration = certificateDesc("generation", "The newest generation; 0 before the first.")
	descFailures   = certificateDesc("failed_attempts", "Failed attempts since the newest generation.")
	descHold       = certificateDesc("held", "1 while the next generation waits for the issuer's limits.")
	descPause      = certificateDesc("paused", "1 while nobody renews it.")
	descReady      = certificateDesc("ready_status", "1 for the condition that holds: True while there is a generation and the last attempt did not fail.", "condition")
)

// certificates is the collector of what Changed took.
type certificates Status

// Describe implements prometheus.Collector.
func (c *certificates) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descExpiration, descRenewal, descNotBefore, descNotAfter, descGeneration, descFailures, descHold, descPause, descReady} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *certificates) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.certs {
		gauge := func(d *prometheus.Desc, v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, append([]string{m.ID, m.Spec.Group, m.Spec.Issuer}, labels...)...)
		}
		gauge(descRenewal, float64(m.RenewAt().Unix()))
		gauge(descGeneration, float64(m.Generation))
		failures := 0.0
		if m.Failure != nil {
			failures = float64(m.Failure.Attempts)
		}
		gauge(descFailures, failures)
		gauge(descHold, number(m.Hold != nil))
		gauge(descPause, number(m.Pause != nil))
		ready := map[string]float64{"True": 0, "False": 0}
		if m.Certificate != nil {
			gauge(descExpiration, float64(m.Certificate.NotAfter.Unix()))
			gauge(descNotAfter, float64(m.Certificate.NotAfter.Unix()))
			gauge(descNotBefore, float64(m.Certificate.NotBefore.Unix()))
		}
		if m.Certificate != nil && m.Failure == nil {
			ready["True"] = 1
		} else {
			ready["False"] = 1
		}
		for condition, v := range ready {
			gauge(descReady, v, condition)
		}
	}
}
