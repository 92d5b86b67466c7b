// SPDX-License-Identifier: Apache-2.0

package replica_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/membus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable/powercut"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// An askedLog calls asked before a request to join is on it.
type askedLog struct {
	bus.Boarder
	asked func()
}

func (l *askedLog) Append(ctx context.Context, key string, after bus.Position, data []byte) (bus.Position, error) {
	if strings.HasPrefix(key, event.JoinScope+"/") {
		l.asked()
	}
	return l.Boarder.Append(ctx, key, after, data)
}

// What a join has acknowledged.
const (
	asked  = 1 + iota // the token is this host's
	joined            // Join has returned
)

// A guest is a host that joins, and the world that it joins.
type guest struct {
	*fleet
	token *event.Token
	log   *askedLog
}

func newGuest(t *testing.T) *guest {
	g := &guest{log: &askedLog{Boarder: membus.New()}}
	g.fleet = newFleetOn(t, g.log)
	g.token = g.fleet.token()
	g.token.Roots = [][]byte{[]byte("a root")}
	go func() {
		g.member(&event.Member{JoinRequest: *g.requested(g.token), Grant: "grant-of-member", Joined: time.Now()}, g.groupKey)
	}()
	return g
}

// join joins the directory, or opens it if it is joined.
func (g *guest) join(dir string) error {
	if _, err := replica.ReadMembership(dir); err != nil {
		_, err = replica.Join(g.t.Context(), replica.JoinConfig{Token: g.token, Dir: dir, Name: "host-1", Logger: quiet})
		return err
	}
	r, err := replica.Open(g.t.Context(), inDir(dir))
	if err != nil {
		return err
	}
	return r.Close()
}

// work joins while rec follows, and cuts the power at each moment of it.
func (g *guest) work(rec *powercut.Recorder, dir, before string) *powercut.Recording {
	t := g.t
	t.Helper()
	g.log.asked = func() { rec.Acknowledge(asked) }
	if err := g.join(dir); err != nil {
		t.Fatalf("%s%v", before, err)
	}
	rec.Acknowledge(joined)
	r := rec.Stop()
	g.log.asked = func() {}
	r.Cuts(func(c powercut.Cut) {
		if c.Acknowledged < asked {
			return // nobody knows of the host
		}
		if _, err := replica.ReadMembership(c.Dir); err != nil && c.Acknowledged >= joined {
			t.Errorf("%s%s: it is not joined: %v", before, c, err)
		}
		if err := g.join(c.Dir); err != nil {
			t.Errorf("%s%s: %v", before, c, err)
			return
		}
		keys, err := seal.ReadPrivateKeyFile(replica.KeyFile(c.Dir, "default"))
		if err != nil || len(keys) != 1 || !keys[0].Equal(g.groupKey) {
			t.Errorf("%s%s: not the granted key: %v", before, c, err)
		}
	})
	return r
}

// TestPowerCutWhileJoining cuts the power while a host joins, and while a second join
// goes on with what a killed one has left. The same token completes it, once more if
// need be, and what is joined stays so.
func TestPowerCutWhileJoining(t *testing.T) {
	g, dir := newGuest(t), powercut.Dir(t)
	g.work(powercut.Record(t, dir), dir, "").Kills(func(k powercut.Kill) {
		then := g
		if k.Acknowledged < asked {
			then = newGuest(t)
		}
		then.work(k.Record(), k.Dir, "killed after "+k.After+", then ")
	})
}
