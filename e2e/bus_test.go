// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

const tenant = "default"

// bus connects to the bus of an instance as its manager would.
func (s *sandbox) bus(t *testing.T, in *instance) *jetstream.Log {
	t.Helper()
	log, err := jetstream.Connect(jetstream.Options{URL: "nats://" + in.nats, Creds: filepath.Join(s.data, bus.ManagerCreds), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(log.Close)
	return log
}

// managers reads the keys by which entries are believed.
func (s *sandbox) managers(t *testing.T) []*seal.VerifyKey {
	t.Helper()
	keys, err := seal.ReadVerifyKeyFile(filepath.Join(s.data, "managers.pub"))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// watchClaims follows the state of a certificate on the bus. The returned function
// ends that and returns which runs of managers were seen to have claimed which
// generation; more are possible, since a follower may miss what is superseded.
func (s *sandbox) watchClaims(t *testing.T, in *instance, id string) func() map[uint64]map[string]bool {
	t.Helper()
	log, managers := s.bus(t, in), s.managers(t)
	claims := make(map[uint64]map[string]bool) // read when done
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var done sync.WaitGroup
	follows := make(chan struct{})
	done.Go(func() {
		for u, err := range log.Follow(ctx, event.StateKey(id), bus.Position{}) {
			switch {
			case ctx.Err() != nil:
				return
			case err != nil:
				t.Errorf("following the state: %v", err)
				return
			case u.CaughtUp:
				close(follows)
				continue
			}
			e, err := event.Open(managers, tenant, u.Key, u.Data)
			if err != nil {
				t.Errorf("the state: %v", err)
				return
			}
			if c := e.Body.(*event.State).Claim; c != nil {
				if claims[c.Generation] == nil {
					claims[c.Generation] = make(map[string]bool)
				}
				claims[c.Generation][c.Owner+" "+c.Boot] = true
			}
		}
	})
	<-follows
	return func() map[uint64]map[string]bool {
		cancel()
		done.Wait()
		t.Logf("%d generations were seen while they were claimed", len(claims))
		return claims
	}
}

// highest keeps the highest number.
type highest struct {
	mu sync.Mutex
	n  uint64
}

func (h *highest) get() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.n
}

func (h *highest) raise(n uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n = max(h.n, n)
}
