// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// An unresolved entry was not applied and may be later: by a newer program, with
// another key, when the clock is right, when its signer is trusted.
type unresolved struct {
	before bus.Position // a restart follows the bus from there
	// entry is tried again when keys or managers change. It has no data where too
	// much would be kept: then the bus is asked again.
	entry    bus.Entry
	received time.Time
}

// Bounds of the memory for them. Beyond maxUnresolved a restart follows from
// the start.
const (
	maxUnresolved = 1000
	maxWaiting    = 8 << 20 // bytes of data
)

// unresolve notes an entry that was not applied; before is the place before it.
func (r *Replica) unresolve(entry bus.Entry, before bus.Position) {
	if r.unresolved == nil {
		r.unresolved = make(map[string]unresolved)
	}
	key := entry.Key
	old, ok := r.unresolved[key]
	if ok {
		before = old.before
	} else if len(r.unresolved) >= maxUnresolved {
		key, before, entry = "", bus.Position{}, bus.Entry{} // no entry has this key
	}
	kept := len(entry.Data)
	for other, u := range r.unresolved {
		if other != key {
			kept += len(u.entry.Data)
		}
	}
	if kept > maxWaiting {
		entry.Data = nil
	}
	r.unresolved[key] = unresolved{before, entry, r.received(entry)}
}

// received is when an entry came first.
func (r *Replica) received(entry bus.Entry) time.Time {
	if u, ok := r.unresolved[entry.Key]; ok && bytes.Equal(u.entry.Data, entry.Data) {
		return u.received
	}
	return time.Now()
}

// retry tries again what was not applied. It is called with mu held, after a
// change of keys or managers.
func (r *Replica) retry() {
	waiting := make([]unresolved, 0, len(r.unresolved))
	complete := true
	for _, u := range r.unresolved {
		if u.entry.Data == nil {
			complete = false
			continue
		}
		waiting = append(waiting, u)
	}
	slices.SortFunc(waiting, func(a, b unresolved) int {
		return cmp.Compare(a.entry.Position.Seq, b.entry.Position.Seq)
	})
	for _, u := range waiting {
		if r.applyLocked(u.entry, nil) {
			delete(r.unresolved, u.entry.Key)
		}
	}
	if !complete {
		r.followAgain(r.resume())
	}
}

// resume is where a restart follows the bus from.
func (r *Replica) resume() bus.Position {
	at := r.position
	for _, u := range r.unresolved {
		if u.before.Log != at.Log { // the start, or another log
			return bus.Position{}
		}
		if u.before.Seq < at.Seq {
			at = u.before
		}
	}
	return at
}

// A failure is why a newer version of a certificate is not served.
type failure struct {
	version event.Version // zero where it is not known
	text    string
}

// maxFailure bounds a failure's text in a receipt, in bytes.
const maxFailure = 200

// fail notes why a version of id is not served, until another is.
func (r *Replica) fail(id string, v event.Version, err error) {
	old, known := r.failures[id]
	if !known && len(r.failures) >= maxUnresolved {
		return
	}
	if v == (event.Version{}) {
		v = old.version
	}
	if r.failures == nil {
		r.failures = make(map[string]failure)
	}
	now := failure{v, cut(err.Error(), maxFailure)}
	if now != old {
		r.failures[id] = now
		r.kick()
	}
}

// cut shortens a text to n bytes.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-3], "") + "..."
}
