// SPDX-License-Identifier: Apache-2.0

package manager

import "time"

// Stats is what a manager has done since New.
type Stats struct {
	// LastPass is when Run, or RenewDue, last looked at what is due.
	LastPass time.Time
	// Rollbacks is how often this manager found that the log had gone back, and
	// raised its epoch.
	Rollbacks uint64
	// ReceiptsRefused counts receipts that the member did not sign, and
	// ProofsRefused what replicas gave as proof and is none.
	ReceiptsRefused, ProofsRefused uint64
	// Snapshot is when the snapshot of the log was last current and on the disk, by
	// what the bus had told; SnapshotFailed says that it is not kept for now, and
	// SnapshotMissing is how many of its entries the log has lost.
	Snapshot        time.Time
	SnapshotFailed  bool
	SnapshotMissing int
	// Queues are what Run has due and under way, by issuer; those in which nothing
	// is are left out.
	Queues []QueueStats
}

// Stats returns what the manager has done.
func (m *Manager) Stats() Stats {
	m.mu.Lock()
	stats := m.stats
	m.mu.Unlock()
	if s := m.running.Load(); s != nil {
		stats.Queues = s.queues()
	}
	if s := m.snapshots.Load(); s != nil {
		stats.SnapshotMissing = s.lacking()
	}
	return stats
}

func (m *Manager) count(change func(*Stats)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.stats)
}
