// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// An EventKind says what happened in a [Store].
type EventKind uint8

const (
	// Swapped: the certificate of ID is new and live, by Put or by Load.
	Swapped EventKind = iota + 1

	// Removed: ID was removed.
	Removed

	// Refused: a certificate for ID was refused by Put or Load, Err says why.
	// What was served stays served.
	Refused

	// Opened: the certificate of ID that was loaded as a [Lazy] was used for the
	// first time, and is good.
	Opened

	// OpenFailed: the certificate of ID that was loaded as a [Lazy] was needed
	// for the first time, and is bad, Err says why. What it had replaced is
	// served again, or nothing, if it had replaced nothing.
	OpenFailed

	// Unknown: a handshake was refused because nothing fits Name. At most 16 a
	// second are told, the others are only counted in Dropped.
	Unknown
)

// String returns the kind in lower case, as for a log.
func (k EventKind) String() string {
	names := [...]string{Swapped: "swapped", Removed: "removed", Refused: "refused", Opened: "opened", OpenFailed: "open failed", Unknown: "unknown"}
	if k == 0 || int(k) >= len(names) {
		return fmt.Sprintf("EventKind(%d)", uint8(k))
	}
	return names[k]
}

// An Event is one thing that happened in a [Store].
type Event struct {
	Kind EventKind
	ID   string // empty for Unknown
	Name string // of Unknown only: the server name, as in [UnknownNameError]
	Err  error  // of Refused, OpenFailed and Unknown

	// Dropped counts the events since the previous one on this channel that were
	// left out: the channel was full, or unknown names came too fast.
	Dropped uint64
}

// Observe sends what happens from now on to ch, in the order in which it
// happens, until cancel is called. Nothing ever waits for ch: an event that
// finds it full is dropped and counted in the next one's Dropped. So give ch a
// buffer, and read the state from the Store rather than from the events where
// it must be complete. Several channels may observe at once.
//
// After cancel returned nothing is sent any more, and ch may be closed. cancel
// may be called more than once. The Store starts no goroutine.
func (s *Store) Observe(ch chan<- Event) (cancel func()) {
	o := &observer{ch: ch, seen: s.unknowns.left.Load()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.observers.Store(new(append(slices.Clone(s.watchers()), o)))
	return func() { s.unobserve(o) }
}

func (s *Store) unobserve(o *observer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(s.watchers()), func(x *observer) bool { return x == o })
	s.observers.Store(&rest)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ch = nil
}

func (s *Store) watchers() []*observer {
	if list := s.observers.Load(); list != nil {
		return *list
	}
	return nil
}

// tell sends e to all observers.
func (s *Store) tell(e Event) {
	for _, o := range s.watchers() {
		o.send(e, s.unknowns.left.Load())
	}
}

// tellUnknown tells observers of a name, unless there were many just now: somebody
// who makes up names shall not push out what matters, nor make work.
func (s *Store) tellUnknown(err *UnknownNameError) {
	if len(s.watchers()) > 0 && s.unknowns.allow(time.Now()) {
		s.tell(Event{Kind: Unknown, Name: err.Name, Err: err})
	}
}

// An observer is one channel. Its lock is held for no longer than a send that does not
// wait takes, and orders that send before a cancel that returned.
type observer struct {
	mu      sync.Mutex // after Store.mu, where both are held
	ch      chan<- Event
	dropped uint64 // since the last event sent, for a full channel
	seen    uint64 // limiter.left as of the last event sent
}

func (o *observer) send(e Event, left uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.Dropped = o.dropped
	if left > o.seen {
		e.Dropped += left - o.seen
	}
	select {
	case o.ch <- e: // never, if it is nil
		o.dropped, o.seen = 0, max(o.seen, left)
	default:
		o.dropped++
	}
}

// A limiter lets through the first unknownPerSecond of each second and counts the rest.
type limiter struct {
	window atomic.Int64 // seconds of Unix time << 8 | how many in this one
	left   atomic.Uint64
}

const unknownPerSecond = 16

func (l *limiter) allow(now time.Time) bool {
	cur, next := l.window.Load(), now.Unix()<<8|1
	if cur>>8 == now.Unix() {
		next = cur + 1
	}
	// Whoever loses the race for a place goes without: there is no time to wait.
	if next&0xff > unknownPerSecond || !l.window.CompareAndSwap(cur, next) {
		l.left.Add(1)
		return false
	}
	return true
}
