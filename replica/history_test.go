// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
)

// What was held at each place is compared with a record of all places.
func TestWhatWasHeldAtAPlace(t *testing.T) {
	const places = 5 * maxHistory
	r := &Replica{held: make(map[string]*held)}
	ids := make([]string, 20)
	for i := range ids {
		ids[i] = event.NewID()
	}
	place := func(seq int) bus.Position { return bus.Position{Log: "log", Seq: uint64(seq)} }
	record := make([]map[string]event.Version, places+1)
	record[0] = map[string]event.Version{}
	for i := 1; i <= places; i++ {
		record[i] = maps.Clone(record[i-1])
		id := ids[rand.N(len(ids))]
		v := event.Version{Epoch: 1, Generation: record[i][id].Generation + 1}
		record[i][id] = v
		r.history.add(place(i), id, r.held[id])
		r.held[id] = &held{version: v}
		r.position = place(i)
	}
	known := 0
	for i := range record {
		versions, ok := r.heldAt(place(i))
		if ok && !maps.Equal(versions, record[i]) {
			t.Fatalf("at %d: %v, not %v", i, versions, record[i])
		}
		if ok {
			known++
		}
	}
	if known < maxHistory || known > 2*maxHistory+1 {
		t.Errorf("%d places are known", known)
	}
	if now, ok := r.heldAt(bus.Position{Log: "other", Seq: 1}); !ok || !maps.Equal(now, record[places]) {
		t.Error("a place in another log is not compared with what is held now")
	}
}
