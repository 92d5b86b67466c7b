// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/replica"
)

// members returns the state of each member of the group, by its host's name.
func (w *web) members() map[string]string {
	w.t.Helper()
	var list []struct{ Name, State string }
	if err := json.Unmarshal([]byte(w.keyturn("replica", "ls", "web", "--output", "json")), &list); err != nil {
		w.t.Fatalf("replica ls: %v", err)
	}
	states := make(map[string]string)
	for _, m := range list {
		states[m.Name] = m.State
	}
	return states
}

// complete waits for the end of a rotation, and repeats it until it succeeds.
func (w *web) complete(p *process) {
	w.t.Helper()
	code, err := p.wait()
	for tries := 0; err == nil && code != 0; tries++ {
		if tries == 5 {
			w.t.Fatalf("%s: exit code %d\n%s", p, code, tail(p.err.String()))
		}
		p = w.start(p.name, p.args...)
		code, err = p.wait()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestManagerKilledAtWork kills the manager, and the bus with it, again and again
// while a host joins and is granted the group's keys, and while these are turned.
// What was begun is completed, and nothing that was there before is lost.
func TestManagerKilledAtWork(t *testing.T) {
	t.Parallel()
	const kills = 10
	random := rand.New(rand.NewPCG(newSeed(t), 0))
	w := newWeb(t, 10, 1)
	j := newJournal()
	for _, c := range w.rows() {
		j.made(c.ID, c.Names[0])
	}
	for i := range kills {
		name := fmt.Sprintf("guest%d", i)
		token := strings.TrimSpace(w.keyturn("replica", "token", "web"))
		guest := w.host(name)
		w.replicas = w.replicas[:len(w.replicas)-1] // it comes and goes
		before := w.group("web")
		joining := guest.sandbox.start(keyturn, "replica", "join", token, "--dir", guest.dir, "--name", name)
		turning := w.start(keyturn, "group", "key", "rotate", "web")
		time.Sleep(time.Duration(random.Int64N(int64(time.Second)))) // the random moment
		w.manager.kill(t)
		w.serve()

		if code, err := joining.wait(); err != nil || code != 0 {
			t.Fatalf("kill %d: %s: exit code %d, %v\n%s", i+1, joining, code, err, tail(joining.err.String()))
		}
		w.complete(turning)
		for host, state := range w.members() {
			if state != "granted" {
				t.Errorf("kill %d: %s is %s", i+1, host, state)
			}
		}
		if members := w.members(); len(members) != i+2 {
			t.Errorf("kill %d: the members are %v, want %d", i+1, members, i+2)
		}
		now := w.group("web")
		if now.Key == before.Key || len(now.Retiring) > 0 {
			t.Errorf("kill %d: the group is %+v, before it was %+v", i+1, now, before)
		}
		for _, id := range j.managed() {
			c, err := w.tryCat(id)
			if err == nil {
				err = j.take(c)
			}
			if err != nil {
				t.Errorf("kill %d: %v", i+1, err)
			}
		}
		guest.start(t)
		w.converged(guest)
		w.allConverged()
		eventually(t, "the key file of "+name, func() error {
			ids, err := keyIDs(replica.KeyFile(guest.dir, "web"))
			if err == nil && (len(ids) != 1 || ids[0] != now.Key) {
				err = errors.New("it has not the group's key alone")
			}
			return err
		})
		guest.server.stop(t, sigterm)
		if t.Failed() {
			return
		}
	}
	w.watch.check(t, w.histories())
}
