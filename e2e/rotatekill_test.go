// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// A rotation is what the bus has shown of one, as it went on.
type rotation struct {
	w *web

	mu       sync.Mutex
	key      seal.KeyID            // guarded by mu; the group's
	retiring int                   // guarded by mu; how many keys are
	most     int                   // guarded by mu; how many were at once
	retired  int                   // guarded by mu
	granted  map[string]seal.KeyID // guarded by mu; the newest key of each member
	marked   map[string]bool       // guarded by mu; of each state
	sealed   map[string]seal.KeyID // guarded by mu; by certificate
}

// watchRotation follows the bus until the test ends.
func (w *web) watchRotation() *rotation {
	t := w.t
	r := &rotation{w: w, granted: make(map[string]seal.KeyID), marked: make(map[string]bool), sealed: make(map[string]seal.KeyID)}
	log, managers := w.bus(t, &instance{nats: w.nats}), w.managers(t)
	ctx, cancel := context.WithCancel(context.Background())
	var follow, caught sync.WaitGroup
	t.Cleanup(func() { cancel(); follow.Wait() })
	for _, scope := range []string{event.GroupKey("web"), event.MemberScope + "/web", event.StateScope, event.GroupScope("web")} {
		caught.Add(1)
		follow.Go(func() {
			for u, err := range log.Follow(ctx, scope, bus.Position{}) {
				switch {
				case ctx.Err() != nil:
					return
				case err != nil:
					t.Errorf("following %s: %v", scope, err)
					return
				case u.CaughtUp:
					caught.Done()
					continue
				}
				e, err := event.Open(managers, tenant, u.Key, u.Data)
				if err != nil {
					t.Errorf("%s: %v", u.Key, err)
					return
				}
				r.take(e.Body)
			}
		})
	}
	caught.Wait()
	return r
}

func (r *rotation) take(b event.Body) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch b := b.(type) {
	case *event.Group:
		if key, err := seal.NewPublicKey(b.Key); err == nil {
			r.key = key.ID()
		}
		r.retiring, r.retired = len(b.Retiring), len(b.Retired)
		r.most = max(r.most, r.retiring)
	case *event.Member:
		if len(b.KeyIDs) > 0 {
			r.granted[b.ID] = b.KeyIDs[0]
		}
	case *event.State:
		r.marked[b.ID] = b.Mark != nil
	case *event.Certificate:
		if id, err := seal.Recipient(b.SealedKey); err == nil {
			r.sealed[b.ID] = id
		}
	}
}

// A moment is one in a rotation from the key that the group had.
type moment struct {
	name string
	is   func(r *rotation, had seal.KeyID) bool // called with r.mu held
}

// moments are those at which a rotation is killed.
func moments() []moment {
	granted := func(n int) func(*rotation, seal.KeyID) bool {
		return func(r *rotation, had seal.KeyID) bool {
			for _, id := range r.granted {
				if id != had {
					n--
				}
			}
			return n <= 0
		}
	}
	sealed := func(n int) func(*rotation, seal.KeyID) bool {
		return func(r *rotation, had seal.KeyID) bool {
			done := 0
			for _, id := range r.sealed {
				if id != had {
					done++
				}
			}
			return done >= n
		}
	}
	return []moment{
		{"the key is in the file", func(r *rotation, had seal.KeyID) bool {
			ids, err := keyIDs(replica.KeyFile(r.w.data, "web"))
			return err == nil && ids[0] != had.String()
		}},
		{"one member has the key", func(r *rotation, had seal.KeyID) bool { return granted(1)(r, had) }},
		{"all members have the key", func(r *rotation, had seal.KeyID) bool { return granted(3)(r, had) }},
		{"the group has the key", func(r *rotation, had seal.KeyID) bool { return r.key != had }},
		{"a certificate is marked", func(r *rotation, had seal.KeyID) bool {
			for _, marked := range r.marked {
				if marked {
					return true
				}
			}
			return false
		}},
		{"one certificate is sealed to the key", sealed(1)},
		{"half of them are", sealed(10)},
		{"all of them are", sealed(20)},
	}
}

// until waits for a moment, or until the process has ended.
func (r *rotation) until(p *process, m moment, had seal.KeyID) error {
	return poll(func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.ended() || m.is(r, had) {
			return nil
		}
		return fmt.Errorf("it is not so that %s", m.name)
	})
}

// TestRotateGroupKeyKilled kills the turning of a group's key at several moments.
// The same command completes it, and no second key is made beside the new one.
func TestRotateGroupKeyKilled(t *testing.T) {
	t.Parallel()
	w := newWeb(t, 20, 3)
	r := w.watchRotation()
	for _, m := range moments() {
		before, had := w.group("web"), w.generations()
		r.mu.Lock()
		key := r.key
		r.mu.Unlock()
		p := w.start(keyturn, "group", "key", "rotate", "web")
		if err := r.until(p, m, key); err != nil {
			t.Fatal(err)
		}
		if p.ended() {
			t.Logf("killed when %s: it had ended with code %d", m.name, p.code)
		} else {
			p.kill(t)
		}
		// Whoever runs may have completed it, but then nothing is left to go on with.
		if now := w.group("web"); now.Key == before.Key || len(now.Retiring) > 0 {
			w.keyturn("group", "key", "rotate", "web")
		}
		now := w.group("web")
		if now.Key == before.Key || len(now.Retiring) > 0 {
			t.Errorf("killed when %s: the group is %+v, before it was %+v", m.name, now, before)
		}
		for _, c := range w.rows() {
			if c.Generation <= had[c.ID] {
				t.Errorf("killed when %s: %s is still at generation %d", m.name, c.ID, c.Generation)
			}
		}
		w.allConverged()
		w.holdsOnly(now.Key)
		r.mu.Lock()
		most := r.most
		r.mu.Unlock()
		if most > 1 {
			t.Fatalf("killed when %s: %d keys were retiring at once", m.name, most)
		}
	}
	t.Logf("%d rotations were killed, and made %d keys", len(moments()), len(w.group("web").Retired))
	w.watch.check(t, w.histories())
}
