// SPDX-License-Identifier: Apache-2.0

package status

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyturn/keyturn/bus"
)

var (
	descReduced  = busDesc("durability_reduced", "1 while the bus keeps entries less durably than promised, for this reason.", "reason")
	descReplicas = busDesc("replicas", "Copies that there shall be of the log and of the board.", "stream")
	descCurrent  = busDesc("replicas_current", "Copies that have the newest entries.", "stream")
	descEntries  = busDesc("entries", "Entries in the log, and notices on the board.", "stream")
	descBytes    = busDesc("bytes", "What they take on one server.", "stream")
)

func busDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_bus_"+name, help, labels, nil)
}

// Bus takes what was read back of how the bus keeps entries.
func (s *Status) Bus(d *bus.Durability) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bus = d
}

// busMetrics is the collector of what Bus took.
type busMetrics Status

// Describe implements prometheus.Collector.
func (c *busMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descReduced, descReplicas, descCurrent, descEntries, descBytes} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *busMetrics) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	d := c.bus
	c.mu.Unlock()
	if d == nil {
		return
	}
	reduced := make(map[string]bool)
	for _, r := range d.Reduced {
		reduced[r.Reason] = true
	}
	for _, reason := range bus.Reasons {
		gauge(ch, descReduced, number(reduced[reason]), reason)
	}
	for _, s := range d.Streams {
		gauge(ch, descReplicas, float64(s.Replicas), s.What)
		gauge(ch, descCurrent, float64(s.Current), s.What)
		gauge(ch, descEntries, float64(s.Entries), s.What)
		gauge(ch, descBytes, float64(s.Bytes), s.What)
	}
}
