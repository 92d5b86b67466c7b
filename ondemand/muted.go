// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"hash/maphash"
	"sync"
	"time"
)

// Bounds of the log: what is refused for a name is said once in quiet, and for so
// many names. Clients decide how many names there are.
const (
	quiet     = 10 * time.Minute
	maxSpoken = 256
)

// muted remembers what was said, by hashes: it takes the same memory however many
// names are asked for.
type muted struct {
	mu     sync.Mutex
	seed   maphash.Seed
	until  map[uint64]time.Time
	unsaid uint64
}

// speak reports whether to log something about the name now, and how much was left
// out since the last time it said so.
func (m *muted) speak(name string, now time.Time) (unsaid uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.until == nil {
		m.seed, m.until = maphash.MakeSeed(), make(map[uint64]time.Time)
	}
	key := maphash.String(m.seed, name)
	if now.Before(m.until[key]) {
		m.unsaid++
		return 0, false
	}
	if len(m.until) >= maxSpoken {
		for k, until := range m.until {
			if !now.Before(until) {
				delete(m.until, k)
			}
		}
	}
	if len(m.until) >= maxSpoken {
		m.unsaid++
		return 0, false
	}
	m.until[key] = now.Add(quiet)
	unsaid, m.unsaid = m.unsaid, 0
	return unsaid, true
}
