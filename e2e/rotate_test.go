// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// A groupState is a row of "group ls", as far as the tests look at it.
type groupState struct {
	Name, Key         string
	Members, Waiting  int
	Retiring, Retired []struct{ Key, Reason string }
}

// group runs "group ls" and returns one.
func (s *sandbox) group(name string) groupState {
	s.t.Helper()
	var list []groupState
	if err := json.Unmarshal([]byte(s.keyturn("group", "ls", "--output", "json")), &list); err != nil {
		s.t.Fatalf("group ls: %v", err)
	}
	for _, g := range list {
		if g.Name == name {
			return g
		}
	}
	s.t.Fatalf("group ls has no group %s", name)
	return groupState{}
}

// keyIDs are the ids of the keys in a file of a group's keys.
func keyIDs(path string) (ids []string, err error) {
	keys, err := seal.ReadPrivateKeyFile(path)
	for _, k := range keys {
		ids = append(ids, k.Public().ID().String())
	}
	return ids, err
}

// holdsOnly waits until the key file of each replica has the group's key alone.
func (w *web) holdsOnly(key string) {
	w.t.Helper()
	for _, r := range w.replicas {
		eventually(w.t, "the key file of "+r.name, func() error {
			ids, err := keyIDs(replica.KeyFile(r.dir, "web"))
			if err == nil && (len(ids) != 1 || ids[0] != key) {
				err = fmt.Errorf("it has %v, not %s alone", ids, key)
			}
			return err
		})
	}
}

// generations returns the newest of each certificate, by id.
func (w *web) generations() map[string]uint64 {
	w.t.Helper()
	all := make(map[string]uint64)
	for _, c := range w.rows() {
		all[c.ID] = c.Generation
	}
	return all
}

// rotated checks that a rotation is complete: the group has a key that it had
// not, the former one is retired, every certificate that there was has a new
// generation for the reason given, and the replicas hold nothing else. It returns the group.
func (w *web) rotated(before groupState, had map[string]uint64, reason string) groupState {
	t := w.t
	t.Helper()
	now := w.group("web")
	if now.Key == before.Key || len(now.Retired) != len(before.Retired)+1 || len(now.Retiring) != 0 {
		t.Fatalf("after the rotation the group is %+v, before it was %+v", now, before)
	}
	if last := now.Retired[len(now.Retired)-1]; last.Key != before.Key || last.Reason != reason {
		t.Errorf("%+v was retired last, not %s for %q", last, before.Key, reason)
	}
	for _, c := range w.rows() {
		if c.Generation <= had[c.ID] {
			t.Errorf("%s is still at generation %d", c.ID, c.Generation)
		}
		for _, g := range w.cat(c.ID).History {
			if had[c.ID] > 0 && g.Generation > had[c.ID] && g.Reason != reason {
				t.Errorf("%s: the reason of generation %d is %q, not %q", c.ID, g.Generation, g.Reason, reason)
			}
		}
	}
	w.allConverged()
	w.holdsOnly(now.Key)
	return now
}

// TestRotateGroupKey turns a group's key under handshakes, and has a replica
// start from its snapshot afterwards with nobody there to ask.
func TestRotateGroupKey(t *testing.T) {
	t.Parallel()
	w := newWeb(t, 50, 3)
	before, had := w.group("web"), w.generations()
	w.keyturn("group", "key", "rotate", "web")
	w.rotated(before, had, "group-key")
	rows, histories := w.rows(), w.histories()

	w.manager.stop(t, sigterm)
	r := w.replicas[0]
	r.mu.Lock()
	r.server.stop(t, sigterm)
	r.start(t)
	for _, c := range rows {
		eventually(t, r.name+" from its snapshot", func() error { return r.client(c.Names[0]).sees(c.Serial) })
	}
	r.mu.Unlock()
	w.watch.check(t, histories)
}
