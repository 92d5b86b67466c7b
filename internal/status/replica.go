// SPDX-License-Identifier: Apache-2.0

package status

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/replica"
)

// Replica adds the metrics of a replica.
func (s *Status) Replica(r *replica.Replica) {
	s.registry.MustRegister(replicaMetrics{r})
}

var (
	descHeld      = prometheus.NewDesc("keyturn_replica_certificates", "Certificates that the replica serves.", nil, nil)
	descFollowing = prometheus.NewDesc("keyturn_replica_following", "1 while the replica follows the bus and has all of it.", nil, nil)
	descApplied   = prometheus.NewDesc("keyturn_replica_applied_total", "Generations that were applied since the start.", nil, nil)
	descRemoved   = prometheus.NewDesc("keyturn_replica_removed_total", "Certificates that were removed since the start.", nil, nil)
	descRefused   = prometheus.NewDesc("keyturn_replica_refused_total", "Events that were refused since the start.", []string{"reason"}, nil)
	descBeacon    = prometheus.NewDesc("keyturn_replica_beacon_timestamp_seconds", "When the newest beacon was signed that the replica has seen.", nil, nil)
	descSilent    = prometheus.NewDesc("keyturn_replica_silent", "1 while no beacon comes from the managers.", nil, nil)
	descDiffer    = prometheus.NewDesc("keyturn_replica_differs", "1 while what is held is not what the newest beacon says.", nil, nil)
	descHealed    = prometheus.NewDesc("keyturn_replica_healed_total", "How often following the bus from its start has mended that, since the start.", nil, nil)
	descEnds      = prometheus.NewDesc("keyturn_replica_outage_budget_timestamp_seconds", "When the first certificate ends that is held.", nil, nil)
	descSnapshot  = prometheus.NewDesc("keyturn_replica_snapshot_errors_total", "Failed writes of the snapshot since the start.", nil, nil)
)

type replicaMetrics struct{ r *replica.Replica }

// Describe implements prometheus.Collector.
func (c replicaMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descHeld, descFollowing, descApplied, descRemoved, descRefused, descSnapshot, descBeacon, descSilent, descDiffer, descHealed, descEnds} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c replicaMetrics) Collect(ch chan<- prometheus.Metric) {
	s := c.r.Status()
	gauge(ch, descHeld, float64(s.Certificates))
	gauge(ch, descFollowing, number(s.Following))
	gauge(ch, descSilent, number(s.Silent))
	gauge(ch, descDiffer, number(s.Differs))
	when(ch, descBeacon, s.Beacon)
	when(ch, descEnds, s.Budget)
	for d, n := range map[*prometheus.Desc]uint64{
		descApplied: s.Applied, descRemoved: s.Removed, descSnapshot: s.SnapshotErrors, descHealed: s.Healed,
	} {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	for _, reason := range replica.Reasons() {
		ch <- prometheus.MustNewConstMetric(descRefused, prometheus.CounterValue, float64(s.Refused[reason]), string(reason))
	}
}
