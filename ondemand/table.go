// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A table has an entry for each name that is in memory.
type table struct {
	entries sync.Map // string to *entry: handshakes read it without a lock

	// mu orders changes of entries. It is never held while anything waits.
	mu      sync.Mutex
	count   int // of entries that can be dropped
	max     int // of count
	closed  bool
	flights sync.WaitGroup
}

// An entry is one name.
type entry struct {
	name string
	// pinned is that of CommonName, which stands under each name of the plan as
	// well, and is never dropped.
	pinned bool

	live atomic.Pointer[held] // nil: there is no certificate
	used atomic.Int64         // when it was last asked for, in seconds of Unix time
	next atomic.Int64         // from when on a renewal is overdue, in nanoseconds of Unix time

	// Guarded by table.mu.
	flight   *flight // what is under way; nil if nothing is
	failures uint64  // in a row
	err      error   // the last one
	blocked  time.Time
	timer    *time.Timer // for what is next
	gone     bool        // from the table
}

// errFull is why a name is not taken in.
var errFull = errors.New("certificates for as many names as MaxNames are being issued")

// start makes the entry of CommonName.
func (t *table) start(p *plan) {
	t.max = p.maxNames
	if p.name == "" {
		return
	}
	own := &entry{name: p.name, pinned: true}
	for _, name := range p.every {
		t.entries.Store(name, own)
	}
}

// find returns the entry of a name in its normal form, or nil. It does not allocate.
func (t *table) find(name string) *entry {
	if e, ok := t.entries.Load(name); ok {
		return e.(*entry)
	}
	return nil
}

// findAddr is find of an IP address. Only long ones make it allocate.
func (t *table) findAddr(ip netip.Addr) *entry {
	var buf [len("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]byte
	return t.find(string(ip.AppendTo(buf[:0])))
}

// serve returns what handshakes get now without waiting, or nil.
func (e *entry) serve(now time.Time) *held {
	h := e.live.Load()
	if !h.valid(now) {
		return nil
	}
	e.touch(now)
	return h
}

// touch writes once a second at most: processors would fight for it.
func (e *entry) touch(now time.Time) {
	if sec := now.Unix(); e.used.Load() != sec {
		e.used.Store(sec)
	}
}

func (e *entry) overdue(now time.Time) bool { return now.UnixNano() >= e.next.Load() }

// wanted reports whether anybody asked for the name since its certificate came.
func (e *entry) wanted(h *held) bool { return e.pinned || e.used.Load() >= h.made.Unix() }

// addLocked makes an entry, and room for it.
func (t *table) addLocked(name string, now time.Time) (*entry, error) {
	if t.count >= t.max {
		victim := t.leastLocked(now)
		if victim == nil {
			return nil, errFull
		}
		t.dropLocked(victim)
	}
	e := &entry{name: name}
	t.entries.Store(name, e)
	t.count++
	return e, nil
}

// leastLocked returns the entry that is missed the least: one without a certificate,
// or else the one that was not asked for the longest.
func (t *table) leastLocked(now time.Time) *entry {
	var least *entry
	var rank int64
	t.entries.Range(func(_, value any) bool {
		e := value.(*entry)
		if e.pinned || e.flight != nil {
			return true
		}
		r := e.used.Load()
		if !e.live.Load().valid(now) {
			r = -1
		}
		if least == nil || r < rank {
			least, rank = e, r
		}
		return true
	})
	return least
}

func (t *table) dropLocked(e *entry) {
	e.stopLocked()
	if e.pinned {
		return
	}
	e.gone = true
	t.entries.CompareAndDelete(e.name, e)
	t.count--
}

func (e *entry) stopLocked() {
	if e.timer != nil {
		e.timer.Stop()
		e.timer = nil
	}
}

func (t *table) close() {
	t.mu.Lock()
	t.closed = true
	t.entries.Range(func(_, value any) bool {
		e := value.(*entry)
		e.stopLocked()
		if e.flight != nil {
			e.flight.cancel()
		}
		return true
	})
	t.mu.Unlock()
	t.flights.Wait()
}
