// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// An index does what a map does, over many growths and shrinkings.
func TestIndexLikeMap(t *testing.T) {
	const keys = 3000
	random := rand.New(rand.NewPCG(1, 2))
	var x index
	model := map[string]*generation{}
	step := func(likely float64) {
		key := fmt.Sprint("key ", random.IntN(keys))
		if random.Float64() < likely {
			g := &generation{id: key, cert: new(tls.Certificate)}
			g.alone.gen = g
			x.swap(key, model[key], g)
			model[key] = g
		} else if g := model[key]; g != nil {
			x.swap(key, g, nil)
			delete(model, key)
		}
	}
	for _, likely := range []float64{1, 0.5, 0, 0.9, 0.1} {
		for range 5 * keys {
			step(likely)
		}
		for i := range keys {
			key := fmt.Sprint("key ", i)
			if got := x.first(key); got != model[key] {
				t.Fatalf("%s leads to %v, want %v", key, got, model[key])
			}
			slot, g := x.find(key), model[key]
			if slot.leads() != (g != nil) || slot.leads() && slot.sole.Load() != g.cert {
				t.Fatalf("the slot of %s is %v, want that of %v", key, slot, g)
			}
		}
		seen := 0
		for set := range x.all() {
			if set.gen != model[set.gen.id] {
				t.Fatalf("all yields %v", set.gen)
			}
			seen++
		}
		if seen != len(model) {
			t.Fatalf("all yields %d, want %d", seen, len(model))
		}
		slots, used := 0, 0
		for i := range x.shards {
			table := x.shards[i].Load()
			slots += len(table.slots)
			used += table.used
		}
		if most := 8*len(x.shards) + 2*len(model) + 8*len(x.shards); used > most {
			t.Errorf("%d slots are used for %d keys", used, len(model))
		}
		if most := 16*len(x.shards) + 5*used; slots > most {
			t.Errorf("there are %d slots for %d keys", slots, len(model))
		}
	}
	if x.first("") != nil || x.first(string(make([]byte, 256))) != nil {
		t.Error("a key that cannot be leads somewhere")
	}
}

// Keys with the same tag are told apart by their bytes.
func TestIndexCollision(t *testing.T) {
	var x index
	for _, key := range []string{"two", "one"} {
		b := []byte(key)
		x.insert(tagOf("one"), &b[0])
	}
	if slot := x.find("one"); slot == nil || *slot.key != 'o' {
		t.Errorf("found %v", slot)
	}
	if slot := x.find("two"); slot != nil {
		t.Errorf("found %v by another's tag", slot)
	}
}

func TestHasUpper(t *testing.T) {
	for c := range 256 {
		for length := 1; length < 20; length++ {
			for at := range length {
				name := make([]byte, length)
				for i := range name {
					name[i] = "a@[`{zZ\x7f\x80\xff"[(i+c)%6]
				}
				name[at] = byte(c)
				want := false
				for _, b := range name {
					want = want || 'A' <= b && b <= 'Z'
				}
				if got := hasUpper(string(name)); got != want {
					t.Fatalf("hasUpper(%q) = %v", name, got)
				}
			}
		}
	}
}

// Every byte of a key of any length counts for its tag, and similar names spread evenly.
func TestTags(t *testing.T) {
	for n := 1; n <= maxKey; n++ {
		key := []byte(strings.Repeat("a", n))
		seen := map[uint64]int{tagOf(string(key)): -1}
		for i := range key {
			key[i] = 'b'
			tag := tagOf(string(key))
			if other, ok := seen[tag]; ok {
				t.Errorf("of %d bytes, changing number %d does what changing number %d does", n, i, other)
			}
			if tag&maxKey != uint64(n) {
				t.Errorf("the tag of %d bytes has length %d", n, tag&maxKey)
			}
			seen[tag] = i
			key[i] = 'a'
		}
	}

	const keys, bins = 1 << 16, 128
	var shards, controls, groups [bins]int
	for i := range keys {
		tag := tagOf(fmt.Sprintf("host-%d.example.com", i))
		shards[tag>>57]++
		controls[control(tag)&0x7f]++
		groups[tag>>16%bins]++
	}
	for what, counts := range map[string][bins]int{"shard": shards, "control": controls, "group": groups} {
		for bin, n := range counts {
			// 512 are expected, give or take 23: this is nine times as much.
			if n < 300 || n > 724 {
				t.Errorf("%s %d has %d keys", what, bin, n)
			}
		}
	}
}
