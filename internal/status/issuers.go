// SPDX-License-Identifier: Apache-2.0

package status

import (
	"cmp"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/manager"
)

// issuerCounters count what becomes of certificates, whichever manager does it, by
// the issuer that was asked.
type issuerCounters struct {
	issued, failed, orders *prometheus.CounterVec
}

func newIssuerCounters(r *prometheus.Registry) *issuerCounters {
	counter := func(name, help string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keyturn_issuer_" + name, Help: help}, []string{"issuer_name"})
		r.MustRegister(v)
		return v
	}
	return &issuerCounters{
		issued: counter("certificates_total", "Generations that the issuer signed, for any manager, since the start."),
		failed: counter("failures_total", "Attempts with the issuer that failed, of any manager, since the start."),
		orders: counter("acme_orders_total", "ACME orders that were begun, by any manager, since the start."),
	}
}

// changed counts what is new in a state; nothing where none was known before.
func (i *issuerCounters) changed(before, now *manager.Managed) {
	if before == nil {
		return
	}
	if o := now.Order; o != nil && (before.Order == nil || before.Order.URL != o.URL) {
		i.orders.WithLabelValues(o.Issuer).Inc()
	}
	if f := now.Failure; f != nil && (before.Failure == nil || !before.Failure.At.Equal(f.At)) {
		i.failed.WithLabelValues(cmp.Or(f.Issuer, now.Spec.Issuer)).Inc()
	}
	if n := len(now.History); n > 0 && before.Generation < now.Generation {
		if r := now.History[n-1]; r.Issuer != "" { // not what was brought along
			i.issued.WithLabelValues(r.Issuer).Inc()
		}
	}
}

var (
	descQueue  = issuerDesc("queue_certificates", "Certificates that are due and wait for the issuer, or are under way there, by this manager.", "state")
	descUntil  = issuerDesc("held_until_timestamp_seconds", "When the issuer is asked again by this manager, its limits being used up.")
	descPaused = issuerDesc("paused", "1 while the issuer is paused and certificates wait for it.")
)

func issuerDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_issuer_"+name, help, append([]string{"issuer_name"}, labels...), nil)
}

// queues are the gauges of what waits for each issuer.
func queues(ch chan<- prometheus.Metric, list []manager.QueueStats) {
	for _, q := range list {
		gauge(ch, descQueue, float64(q.Waiting), q.Issuer, "waiting")
		gauge(ch, descQueue, float64(q.Running), q.Issuer, "running")
		gauge(ch, descPaused, number(q.Paused), q.Issuer)
		when(ch, descUntil, q.Until, q.Issuer)
	}
}
