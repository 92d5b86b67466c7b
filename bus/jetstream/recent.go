// SPDX-License-Identifier: Apache-2.0

package jetstream

import "hash/maphash"

// maxRecent is how many entries a recent remembers at least.
const maxRecent = 1024

// A recent remembers what was yielded last, so that what comes again can be told
// from what was missed, and from what stands in another stream at the same place.
type recent struct {
	// sure is the sequence up to which it is not asked any more whether something is
	// missing: it was confirmed, or lies too long behind.
	sure uint64
	// now and before are the last entries, by sequence, and what they hash to.
	now, before generation
}

type generation struct {
	sums map[uint64]uint64
	last uint64 // the highest of its sequences
}

var recentSeed = maphash.MakeSeed()

// add remembers an entry.
func (r *recent) add(seq uint64, data []byte) {
	if len(r.now.sums) >= maxRecent {
		r.sure = max(r.sure, r.before.last)
		r.turn()
	}
	if r.now.sums == nil {
		r.now.sums = make(map[uint64]uint64)
	}
	r.now.sums[seq] = maphash.Bytes(recentSeed, data)
	r.now.last = max(r.now.last, seq)
}

// has reports whether these very bytes were yielded at this place, not long ago.
func (r *recent) has(seq uint64, data []byte) bool {
	for _, g := range []generation{r.now, r.before} {
		if sum, ok := g.sums[seq]; ok {
			return sum == maphash.Bytes(recentSeed, data)
		}
	}
	return false
}

// confirm notes that nothing up to a sequence is missing.
func (r *recent) confirm(seq uint64) {
	r.sure = seq
	r.turn()
}

func (r *recent) turn() { r.before, r.now = r.now, generation{} }
