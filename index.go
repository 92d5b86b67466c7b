// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"sync/atomic"

	"crypto/tls"
)

// An index finds the generations under a key without a lock. Its zero value is
// empty. Reading is for everyone at once, writing for whoever holds Store.mu.
//
// It is a hash table with open addressing that only ever grows in place: a slot,
// once filled, keeps its key, and what a key leads to is changed in its entry.
// So a reader needs no more than atomic loads, and a change touches nothing but
// the entries of what it changes. Keys that lead nowhere any more are left out
// when the table is built anew. It is split into shards so that building anew,
// which happens in a writer, stays short.
type index struct {
	shards [1 << shardBits]atomic.Pointer[table]
}

const shardBits = 6

type table struct {
	slots []slot // a power of two of them, at least one empty

	// For writers. used counts the filled slots, live those that lead somewhere.
	used, live int
}

// A slot's hash is written before its entry and never again, so it may be read
// once the entry has been loaded.
type slot struct {
	hash  uint64
	entry atomic.Pointer[entry]
}

// An entry is a key and what it leads to.
type entry struct {
	key string

	// sole is the answer where it needs no choice: the certificate of the only
	// generation, if that is open. It is set after set.
	sole atomic.Pointer[tls.Certificate]

	// set is all of them, nil if there is none.
	set atomic.Pointer[set]
}

// seed keeps others from choosing names that collide.
var seed = maphash.MakeSeed()

func hash(key string) uint64 { return maphash.String(seed, key) }

// find returns the entry of key, or nil.
func (x *index) find(h uint64, key string) *entry {
	t := x.shards[h>>(64-shardBits)].Load()
	if t == nil {
		return nil
	}
	for i := h; ; i++ {
		slot := &t.slots[i&uint64(len(t.slots)-1)]
		e := slot.entry.Load()
		if e == nil {
			return nil
		}
		if slot.hash == h && e.key == key {
			return e
		}
	}
}

// get returns what key leads to, nil if nothing.
func (x *index) get(key string) *set {
	if e := x.find(hash(key), key); e != nil {
		return e.set.Load()
	}
	return nil
}

// all yields the set of every key that leads somewhere. A key that does so all the
// while is yielded once.
func (x *index) all() iter.Seq[*set] {
	return func(yield func(*set) bool) {
		for i := range x.shards {
			t := x.shards[i].Load()
			if t == nil {
				continue
			}
			for j := range t.slots {
				e := t.slots[j].entry.Load()
				if e == nil {
					continue
				}
				if set := e.set.Load(); set != nil && !yield(set) {
					return
				}
			}
		}
	}
}

// swap takes out out of what key leads to and puts in in; either may be nil. It
// returns the key's entry, nil if the key is unknown and in is nil. The caller
// holds Store.mu.
func (x *index) swap(key string, out, in *generation) *entry {
	h := hash(key)
	e := x.find(h, key)
	if e == nil {
		if in == nil {
			return nil
		}
		e = &entry{key: key}
		x.insert(h, e)
	}
	before := e.set.Load()
	after := before.swap(out, in)
	e.set.Store(after)
	e.sole.Store(after.sole())

	shard := &x.shards[h>>(64-shardBits)]
	t := shard.Load()
	switch {
	case before == nil && after != nil:
		t.live++
	case before != nil && after == nil:
		t.live--
		if t.used-t.live > t.live+8 {
			shard.Store(t.rebuilt())
		}
	}
	return e
}

// insert adds an entry for a new key. The caller holds Store.mu.
func (x *index) insert(h uint64, e *entry) {
	shard := &x.shards[h>>(64-shardBits)]
	t := shard.Load()
	if t == nil {
		t = &table{slots: make([]slot, 4)}
		shard.Store(t)
	}
	if 3*(t.used+1) > 2*len(t.slots) {
		t = t.rebuilt()
		shard.Store(t)
	}
	t.insert(h, e)
}

func (t *table) insert(h uint64, e *entry) {
	for i := h; ; i++ {
		slot := &t.slots[i&uint64(len(t.slots)-1)]
		if slot.entry.Load() == nil {
			slot.hash = h
			slot.entry.Store(e)
			t.used++
			return
		}
	}
}

// rebuilt returns a table of the entries that lead somewhere, at most half full
// with one more.
func (t *table) rebuilt() *table {
	next := &table{slots: make([]slot, 1<<bits.Len(uint(2*t.live+1)))}
	for i := range t.slots {
		slot := &t.slots[i]
		if e := slot.entry.Load(); e != nil && e.set.Load() != nil {
			next.insert(slot.hash, e)
		}
	}
	next.live = t.live
	return next
}
