// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// confScope has what all certificates have in common.
const confScope = "conf"

// A belief is the newest entry of a key that was believed, or written here: the
// same bytes need no second look at their signature, which costs more than all
// else there is to reading an entry. A manager meets each of its own several
// times, since the bus it follows gives back what it wrote.
type belief struct {
	by   *trust // whom it was believed by: who the managers are decides each time
	data []byte
	// event is what data say; nil before somebody wanted to know, and where whoever
	// does gets a copy of his own.
	event *event.Event
}

// remembers reports whether what is believed under a key is remembered: what
// certificates are made of, which is in memory anyway while somebody runs.
func remembers(key string) bool {
	return bus.InScope(key, event.StateScope) || bus.InScope(key, groupsScope) || bus.InScope(key, confScope)
}

// remember notes that data are believed under a key.
func (m *Manager) remember(by *trust, key string, data []byte, e *event.Event) {
	if !remembers(key) {
		return
	}
	if e != nil && !unchanging(e.Body) {
		e = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beliefs[key] = belief{by, data, e}
}

// openBy verifies and decodes an entry, unless that was done before.
func (m *Manager) openBy(t *trust, key string, data []byte) (*event.Event, error) {
	if e := m.recall(t, key, data); e != nil {
		return e, nil
	}
	e, err := event.Open(t.keys, m.tenant, key, data)
	if err == nil {
		m.remember(t, key, data, e)
	}
	return e, err
}

// recall returns what data say that were believed under a key, by the same trust;
// nil if they were not.
func (m *Manager) recall(by *trust, key string, data []byte) *event.Event {
	m.mu.Lock()
	v, ok := m.beliefs[key]
	m.mu.Unlock()
	if !ok || v.by != by || !bytes.Equal(v.data, data) {
		return nil
	}
	if v.event != nil {
		return v.event
	}
	e, err := event.Trusted(m.tenant, v.data)
	if err != nil || e.Key != key {
		return nil
	}
	m.remember(by, key, v.data, e)
	return e
}

// unchanging reports whether nobody changes a body, so that all may have the same.
func unchanging(b event.Body) bool {
	switch b.(type) {
	case *event.State, *event.Certificate, *event.Removal:
		return true
	}
	return false
}
