// SPDX-License-Identifier: Apache-2.0

package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/manager"
)

// Manager adds the metrics of a manager and of the fleet that it sees: they are
// there while its Run runs and has read everything.
func (s *Status) Manager(m *manager.Manager) {
	s.registry.MustRegister(fleetMetrics{m})
}

func fleetDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_"+name, help, labels, nil)
}

var (
	descServed    = fleetDesc("fleet_served", "Replicas that give the newest generation, or a later one, to new handshakes.", "name", "group")
	descDelivered = fleetDesc("fleet_delivered", "Replicas that received the newest generation, or a later one.", "name", "group")
	descMembers   = fleetDesc("fleet_members", "Members of the certificate's group, revoked ones left out.", "name", "group")
	descBudget    = fleetDesc("group_outage_budget_timestamp_seconds", "When the first certificate ends that was issued to the group, or that one of its replicas serves.", "group")
	descReport    = fleetDesc("member_last_report_timestamp_seconds", "When the member's replica was last heard of, by this machine's clock.", "group", "member", "host")
	descSkew      = fleetDesc("member_skew_seconds", "How far the managers' clocks are ahead of the member's.", "group", "member", "host")
	descDiffers   = fleetDesc("member_differs", "1 while the member's replica holds something else than the managers say.", "group", "member", "host")
	descRollbacks = fleetDesc("log_rollbacks_total", "How often this manager found that the log had gone back, since the start.")
	descPass      = fleetDesc("last_pass_timestamp_seconds", "When the manager last looked at what is due.")
	descKept      = fleetDesc("snapshot_timestamp_seconds", "When the manager's snapshot of the log last had all that the bus had told, on the disk.")
	descMissing   = fleetDesc("snapshot_missing_entries", "Entries of the manager's snapshot that the log has lost.")
	descReceipts  = fleetDesc("receipts_refused_total", "Receipts that the member did not sign, since the start.")
	descProofs    = fleetDesc("proofs_refused_total", "What replicas gave as proof that the log went back and is none, since the start.")
)

type fleetMetrics struct{ m *manager.Manager }

// Describe implements prometheus.Collector.
func (c fleetMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descServed, descDelivered, descMembers, descBudget, descReport, descSkew, descDiffers,
		descRollbacks, descPass, descKept, descMissing, descReceipts, descProofs, descQueue, descUntil, descPaused,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c fleetMetrics) Collect(ch chan<- prometheus.Metric) {
	s := c.m.Stats()
	counter := func(d *prometheus.Desc, n uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	counter(descRollbacks, s.Rollbacks)
	counter(descReceipts, s.ReceiptsRefused)
	counter(descProofs, s.ProofsRefused)
	when(ch, descPass, s.LastPass)
	when(ch, descKept, s.Snapshot)
	gauge(ch, descMissing, float64(s.SnapshotMissing))
	queues(ch, s.Queues)
	f := c.m.Live(manager.Query{Counts: true})
	if f == nil {
		return
	}
	for _, m := range f.Certificates {
		gauge(ch, descServed, float64(m.Served), m.ID, m.Group)
		gauge(ch, descDelivered, float64(m.Delivered), m.ID, m.Group)
		gauge(ch, descMembers, float64(m.Members), m.ID, m.Group)
	}
	for _, g := range f.Groups {
		when(ch, descBudget, g.Budget, g.Name)
	}
	for _, m := range f.Members {
		if m.Reported.IsZero() {
			continue
		}
		when(ch, descReport, m.Seen, m.Group, m.ID, m.Name)
		gauge(ch, descSkew, float64(m.Skew), m.Group, m.ID, m.Name)
		gauge(ch, descDiffers, number(m.Differs), m.Group, m.ID, m.Name)
	}
}

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// when is a gauge of a time, left out where there is none.
func when(ch chan<- prometheus.Metric, d *prometheus.Desc, at time.Time, labels ...string) {
	if !at.IsZero() {
		gauge(ch, d, float64(at.UnixMilli())/1000, labels...)
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
