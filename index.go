// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"iter"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// An index finds the generations under a key without a lock. Its zero value is
// empty. Reading is for everyone at once, writing for whoever holds Store.mu.
//
// It is a hash table with open addressing. A slot, once it has a key, keeps it, and
// what the key leads to changes in place: a reader needs no more than atomic loads,
// and a change touches nothing but the slots of what it changes. Keys that lead
// nowhere any more are left out when the table is built anew. A reader that is in the
// table of before at that time sees what was true when it began. The table is split
// into shards so that building anew, which is a writer's work, is always short.
//
// As in Go's maps, slots are in groups of 8, and a word of 8 bits from each of their
// hashes tells which slots of a group to look at. It is mostly all that is read for a
// key that is not there: an unknown name, or one that a wildcard covers.
type index struct {
	shards [1 << shardBits]atomic.Pointer[table]
}

const (
	shardBits = 5

	// A table of at most so many slots is at most half full: that takes little memory,
	// and one group then mostly tells that a key is not there.
	small  = 256
	maxKey = 255 // bytes of a key, and no key is empty
)

type table struct {
	// controls has one byte for each slot, the first slot's the lowest: 0 if it is
	// empty, else 0x80 and 7 bits of the hash. There is a power of two of them.
	controls []atomic.Uint64
	slots    []slot // 8 for each of controls, at least one empty

	// For writers. used counts the slots with a key, live those that lead somewhere.
	used, live int
}

// A slot is a key and what it leads to. It is half a cache line.
type slot struct {
	// tag is the key's hash with its length in the last 8 bits. It and key are written
	// before the control byte, and never again.
	tag uint64
	key *byte

	// sole is the answer where it needs no choice: the certificate of the only
	// generation, if that is open. It is written after set.
	sole atomic.Pointer[tls.Certificate]

	// set is all of them, nil if there is none.
	set atomic.Pointer[set]
}

const (
	eachByte = 0x0101010101010101
	topBits  = 0x80 * eachByte
)

// tagOf returns the tag of a key of 1 to maxKey bytes: a hash that multiplies 16 bytes at
// a time, as Go's maps do where the processor offers no better one (wyhash). hash/maphash
// has a better one and takes twice as long for names, most of it to get there.
func tagOf(key string) uint64 {
	n := uint64(len(key))
	h := secret[0] ^ n
	rest := key
	for ; len(rest) > 16; rest = rest[16:] {
		h = mix(word(rest)^secret[1], word(rest[8:])^h)
	}
	// The last 16 bytes, or all there are; some may have been in the loop as well.
	var a, b uint64
	switch {
	case n >= 16:
		a, b = word(key[n-16:]), word(key[n-8:])
	case n >= 8:
		a, b = word(key), word(key[n-8:])
	default:
		a = lastWord(key)
	}
	h = mix(mix(a^secret[2], b^h)^secret[0], secret[1])
	return h&^maxKey | n
}

// secret keeps others from choosing names that collide.
var secret = func() (words [3]uint64) {
	for i := range words {
		var b [8]byte
		rand.Read(b[:]) // never fails
		words[i] = binary.NativeEndian.Uint64(b[:])
	}
	return words
}()

func mix(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

func (x *index) shard(tag uint64) *atomic.Pointer[table] { return &x.shards[tag>>(64-shardBits)] }

// find returns the slot of key, or nil.
func (x *index) find(key string) *slot {
	tag := tagOf(key)
	t := x.shard(tag).Load()
	if t == nil {
		return nil
	}
	want := uint64(control(tag)) * eachByte
	for g := tag >> 16; ; g++ {
		g &= uint64(len(t.controls) - 1)
		controls := t.controls[g].Load()
		differ := controls ^ want
		// The bytes of differ that are 0, and at times one more, which tag tells apart.
		for m := (differ - eachByte) &^ differ & topBits; m != 0; m &= m - 1 {
			slot := &t.slots[g*8+uint64(bits.TrailingZeros64(m)/8)]
			if slot.tag == tag && unsafe.String(slot.key, len(key)) == key {
				return slot
			}
		}
		if ^controls&topBits != 0 {
			return nil
		}
	}
}

// leads reports whether the slot's key leads somewhere. A nil slot leads nowhere.
func (s *slot) leads() bool { return s != nil && s.set.Load() != nil }

// first returns the best generation of key, or nil. In an index by id it is the only one.
func (x *index) first(key string) *generation {
	if key == "" || len(key) > maxKey {
		return nil
	}
	if slot := x.find(key); slot != nil {
		if set := slot.set.Load(); set != nil {
			return set.gen
		}
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
				if set := t.slots[j].set.Load(); set != nil && !yield(set) {
					return
				}
			}
		}
	}
}

// swap takes out out of what key leads to and puts in in; either may be nil. The caller
// holds Store.mu.
func (x *index) swap(key string, out, in *generation) {
	tag := tagOf(key)
	slot := x.find(key)
	if slot == nil {
		if in == nil {
			return
		}
		slot = x.insert(tag, unsafe.StringData(key))
	}
	before := slot.set.Load()
	after := before.swap(out, in)
	slot.set.Store(after)
	slot.sole.Store(after.sole())

	t := x.shard(tag).Load()
	switch {
	case before == nil && after != nil:
		t.live++
	case before != nil && after == nil:
		t.live--
		if t.used > 2*t.live+8 {
			x.shard(tag).Store(t.rebuilt())
		}
	}
}

// insert returns a slot for a new key. The caller holds Store.mu.
func (x *index) insert(tag uint64, key *byte) *slot {
	shard := x.shard(tag)
	t := shard.Load()
	if t == nil {
		t = newTable(1)
		shard.Store(t)
	}
	if 5*(t.used+1) > 4*len(t.slots) || len(t.slots) <= small && 2*t.used >= len(t.slots) {
		t = t.rebuilt()
		shard.Store(t)
	}
	return t.insert(tag, key)
}

func newTable(groups int) *table {
	return &table{controls: make([]atomic.Uint64, groups), slots: make([]slot, 8*groups)}
}

func control(tag uint64) byte { return 0x80 | byte(tag>>8) }

func (t *table) insert(tag uint64, key *byte) *slot {
	for g := tag >> 16; ; g++ {
		g &= uint64(len(t.controls) - 1)
		controls := t.controls[g].Load()
		empty := ^controls & topBits
		if empty == 0 {
			continue
		}
		i := bits.TrailingZeros64(empty) / 8
		slot := &t.slots[g*8+uint64(i)]
		slot.tag, slot.key = tag, key
		t.controls[g].Store(controls | uint64(control(tag))<<(8*i))
		t.used++
		return slot
	}
}

// rebuilt returns a table of the keys that lead somewhere, at most half full with one
// more.
func (t *table) rebuilt() *table {
	groups := 1 << bits.Len(uint(t.live/4))
	if 16*groups <= small {
		groups *= 2
	}
	next := newTable(groups)
	next.live = t.live
	for i := range t.slots {
		if from := &t.slots[i]; from.set.Load() != nil {
			to := next.insert(from.tag, from.key)
			to.set.Store(from.set.Load())
			to.sole.Store(from.sole.Load())
		}
	}
	return next
}
