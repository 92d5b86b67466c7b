// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// flips is how many bits are flipped at once in the files of the bus, one after the
// other: one may cost an entry, or nothing, and many what no server can read any more.
// They are 200 in all.
var flips = []int{1, 2, 5, 12, 30, 50, 100}

// flip flips bits at random places of all files of the bus, each byte as likely as
// any other.
func (w *web) flip(r *rand.Rand, n int) {
	t := w.t
	t.Helper()
	files := w.busFiles()
	var all int64
	for _, f := range files {
		all += f.size
	}
	for range n {
		at := r.Int64N(all)
		i := 0
		for ; at >= files[i].size; i++ {
			at -= files[i].size
		}
		b, err := os.ReadFile(files[i].path)
		if err != nil {
			t.Fatal(err)
		}
		bit := r.IntN(8)
		b[at] ^= 1 << bit
		if err := os.WriteFile(files[i].path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		name, _ := filepath.Rel(w.busDir(), files[i].path)
		t.Logf("bit %d of byte %d of %d of %s", bit, at, files[i].size, name)
	}
}

// TestBitsOfTheBusFlipped flips bits of the bus's files at random places, a few at a
// time: where that costs an entry it is noticed, and the same command heals it.
func TestBitsOfTheBusFlipped(t *testing.T) {
	t.Parallel()
	r := newRand(t)
	w := newWeb(t, 8, 2)
	histories := []map[string]map[string]bool{w.histories()}
	noticed, lost := 0, 0
	for _, n := range flips {
		rows := w.rows()
		if _, err := w.renew(rows[r.IntN(len(rows))].ID); err != nil {
			t.Fatal(err)
		}
		w.allConverged()
		rows = w.rows()
		histories = append(histories, w.histories())
		w.manager.stop(t, sigterm)
		w.flip(r, n)
		how := w.detect()
		result := w.restore()
		t.Logf("%q: %+v", how, result)
		if how != "" {
			noticed++
		}
		if result.Lost+result.Older > 0 || result.Aside != "" {
			lost++
			if how == "" {
				t.Errorf("nobody has noticed that the bus had lost %+v", result)
			}
		}
		w.serve()
		w.whole(rows)
		histories = append(histories, w.histories())
	}
	t.Logf("of %d times, %d were noticed, and %d had cost something", len(flips), noticed, lost)
	w.goesOn()
	w.watch.check(t, append(histories, w.histories())...)
}
