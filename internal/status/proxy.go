// SPDX-License-Identifier: Apache-2.0

package status

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/proxy"
)

// Proxy adds the metrics of a proxy, and its part to /readyz: from the moment at which
// it is drained on, it is not ready. ends is when the first of its certificates ends; zero
// is not known.
func (s *Status) Proxy(p *proxy.Proxy, ends func() time.Time) {
	s.registry.MustRegister(proxyMetrics{p, ends})
	s.Add(Part{Name: "proxy", Check: func() error {
		if p.Draining() {
			return errDraining
		}
		return nil
	}})
}

var errDraining = errors.New("it is being drained")

var (
	descRequests   = prometheus.NewDesc("keyturn_proxy_requests_total", "Requests that were answered, by the first digit of the status; 1xx became WebSockets.", []string{"code"}, nil)
	descInFlight   = prometheus.NewDesc("keyturn_proxy_requests_in_flight", "Requests and WebSockets under way.", nil, nil)
	descGone       = prometheus.NewDesc("keyturn_proxy_requests_abandoned_total", "Requests whose client went away before the answer.", nil, nil)
	descAnswers    = prometheus.NewDesc("keyturn_proxy_answer_seconds", "Time until the header of an answer.", nil, nil)
	descTarget     = prometheus.NewDesc("keyturn_proxy_target_failures_total", "Requests that the service did not answer.", []string{"reason"}, nil)
	descTargetUp   = prometheus.NewDesc("keyturn_proxy_target_up", "0 while the service fails.", nil, nil)
	descAccepted   = prometheus.NewDesc("keyturn_proxy_connections_total", "Connections that were accepted.", nil, nil)
	descOpen       = prometheus.NewDesc("keyturn_proxy_connections", "Connections that are open.", nil, nil)
	descHandshakes = prometheus.NewDesc("keyturn_proxy_handshake_failures_total", "TLS handshakes that failed.", nil, nil)
	descDraining   = prometheus.NewDesc("keyturn_proxy_draining", "1 from the moment at which draining begins.", nil, nil)
	descProxyEnds  = prometheus.NewDesc("keyturn_proxy_certificate_expiration_timestamp_seconds", "When the first certificate ends that is served, where that is known.", nil, nil)
)

type proxyMetrics struct {
	p    *proxy.Proxy
	ends func() time.Time
}

// Describe implements prometheus.Collector.
func (c proxyMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descRequests, descInFlight, descGone, descAnswers, descTarget, descTargetUp, descAccepted, descOpen, descHandshakes, descDraining, descProxyEnds,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c proxyMetrics) Collect(ch chan<- prometheus.Metric) {
	s := c.p.Stats()
	for class := 1; class < len(s.Requests); class++ {
		ch <- prometheus.MustNewConstMetric(descRequests, prometheus.CounterValue, float64(s.Requests[class]), strconv.Itoa(class)+"xx")
	}
	for reason, n := range map[string]uint64{"unreachable": s.Unreachable, "late": s.Late, "broken": s.Broken} {
		ch <- prometheus.MustNewConstMetric(descTarget, prometheus.CounterValue, float64(n), reason)
	}
	for d, n := range map[*prometheus.Desc]uint64{descGone: s.Gone, descAccepted: s.Accepted, descHandshakes: s.BadHandshakes} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	gauge(ch, descInFlight, float64(s.InFlight))
	gauge(ch, descOpen, float64(s.Open))
	gauge(ch, descTargetUp, number(!s.Down))
	gauge(ch, descDraining, number(s.Draining))
	when(ch, descProxyEnds, c.ends())
	buckets, total := make(map[float64]uint64), uint64(0)
	for i, n := range s.Answers {
		total += n
		if i < len(proxy.AnswerBuckets) {
			buckets[proxy.AnswerBuckets[i].Seconds()] = total
		}
	}
	ch <- prometheus.MustNewConstHistogram(descAnswers, total, s.AnswerTime.Seconds(), buckets)
}
