// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/bustest"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/internal/natsserver"
)

// tenants numbers those that share a server.
var tenants atomic.Int32

// tenant makes the streams of a new tenant, and returns how a manager of it opens
// its log.
func tenant(t *testing.T, urls string, trust *natsserver.Trust) (open func(*testing.T) bus.Log, name string) {
	t.Helper()
	name = fmt.Sprint("t", tenants.Add(1))
	admin := connect(t, jetstream.Options{URL: urls, Creds: trust.Admin, Tenant: name})
	if _, err := admin.Create(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	creds := trust.Manager(t, name)
	return func(t *testing.T) bus.Log {
		return connect(t, jetstream.Options{URL: urls, Creds: creds, Tenant: name})
	}, name
}

// TestExternal runs the suite on a server of one's own, which is another process.
func TestExternal(t *testing.T) {
	s := natsserver.Start(t, natsserver.Options{})
	conform(t, s.URL, s.Trust, func(t *testing.T) {
		s.Kill(t)
		s.Restart(t)
	})
}

// TestCluster runs it on three servers, of which each has a copy.
func TestCluster(t *testing.T) {
	c := natsserver.StartCluster(t, natsserver.Options{})
	conform(t, c.URL(), c.Trust, func(t *testing.T) { c.Restart(t) })
}

func conform(t *testing.T, urls string, trust *natsserver.Trust, restart func(*testing.T)) {
	engine := func(t *testing.T) bustest.Engine {
		open, _ := tenant(t, urls, trust)
		return bustest.Engine{
			Open: open,
			Other: func(t *testing.T) bus.Log {
				other, _ := tenant(t, urls, trust)
				return other(t)
			},
			Restart: restart,
		}
	}
	bustest.Run(t, engine)
	t.Run("Board", func(t *testing.T) { bustest.RunBoard(t, engine) })
}

// TestClusterFaults has one of the three servers fail in the middle.
func TestClusterFaults(t *testing.T) {
	c := natsserver.StartCluster(t, natsserver.Options{})
	follower := func(t *testing.T, stream string) *natsserver.Server {
		leader := c.Leader(t, stream)
		for _, s := range c.Nodes {
			if s != leader {
				return s
			}
		}
		return nil
	}
	leader := func(t *testing.T, stream string) *natsserver.Server { return c.Leader(t, stream) }
	kill := func(t *testing.T, s *natsserver.Server) { s.Kill(t) }
	restart := func(t *testing.T, s *natsserver.Server) { s.Restart(t) }
	cut := func(t *testing.T, s *natsserver.Server) { c.Cut(t, s) }
	heal := func(t *testing.T, _ *natsserver.Server) { c.Heal(t) }
	hang := func(t *testing.T, s *natsserver.Server) { s.Hang(t) }
	goOn := func(t *testing.T, s *natsserver.Server) { s.Continue(t) }
	for name, test := range map[string]struct {
		which      func(*testing.T, string) *natsserver.Server
		begin, end func(*testing.T, *natsserver.Server)
	}{
		"LeaderKilled":   {leader, kill, restart},
		"FollowerKilled": {follower, kill, restart},
		"LeaderCutOff":   {leader, cut, heal},
		"FollowerCutOff": {follower, cut, heal},
		"LeaderHangs":    {leader, hang, goOn},
	} {
		t.Run(name, func(t *testing.T) {
			open, tenant := tenant(t, c.URL(), c.Trust)
			var node *natsserver.Server
			bustest.Through(t, bustest.Engine{Open: open}, bustest.Fault{
				Begin: func(t *testing.T) {
					node = test.which(t, "KEYTURN_"+tenant)
					test.begin(t, node)
				},
				End:      func(t *testing.T) { test.end(t, node) },
				Writable: true,
			})
		})
	}
}

// TestReadWhileNobodyLeads: who reads waits until the servers that are left have chosen
// another to lead.
func TestReadWhileNobodyLeads(t *testing.T) {
	c := natsserver.StartCluster(t, natsserver.Options{})
	open, name := tenant(t, c.URL(), c.Trust)
	log := open(t)
	at, err := log.Append(t.Context(), "state/a", bus.Position{}, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	c.Await(t) // all have their copies
	c.Leader(t, "KEYTURN_"+name).Kill(t)
	if err := log.(bus.Conn).Connected(t.Context()); err != nil { // it may have been its server
		t.Fatal(err)
	}
	e, err := log.Get(t.Context(), "state/a")
	if err != nil || e.Position != at || string(e.Data) != "one" {
		t.Errorf("%+v, %v", e, err)
	}
}
