// SPDX-License-Identifier: Apache-2.0

package natsserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/faultproxy"
)

// A Cluster is servers that hold the same streams.
type Cluster struct {
	Nodes []*Server
	Trust *Trust

	links []link
}

// A link is the way from one server of a cluster to another.
type link struct {
	*faultproxy.Proxy
	from, to int
}

// StartCluster returns a cluster that has a leader. It ends with the test.
func StartCluster(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	c := &Cluster{Trust: newTrust(tb)}
	n := cmp.Or(o.Nodes, 3)
	addresses := make([]string, n)
	for i := range addresses {
		addresses[i] = freeAddress(tb)
	}
	for i := range n {
		var routes []string
		for j := range n {
			if i != j {
				l := link{faultproxy.Start(tb, addresses[j]), i, j}
				c.links = append(c.links, l)
				routes = append(routes, fmt.Sprintf("%q", "nats://"+l.Addr()))
			}
		}
		// What servers tell each other of further addresses would lead around the links.
		cluster := fmt.Sprintf(`cluster {
  name: keyturn
  listen: "%s"
  advertise: "%s:1"
  routes: [%s]
}
`, addresses[i], host, strings.Join(routes, ", "))
		c.Nodes = append(c.Nodes, prepare(tb, fmt.Sprintf("node%d", i+1), c.Trust, o, cluster))
	}
	for _, s := range c.Nodes {
		s.run(tb)
	}
	c.Await(tb)
	return c
}

// Await returns when every server is up to date.
func (c *Cluster) Await(tb testing.TB) {
	tb.Helper()
	for _, s := range c.Nodes {
		s.awaitHealth(tb)
	}
}

// URL is where clients connect: all servers.
func (c *Cluster) URL() string { return URLs(c.Nodes) }

// Restart kills all servers at once, as a power cut does, and starts them again.
func (c *Cluster) Restart(tb testing.TB) {
	tb.Helper()
	for _, s := range c.Nodes {
		s.Kill(tb)
	}
	for _, s := range c.Nodes {
		s.run(tb)
	}
	c.Await(tb)
}

// Leader returns the server that leads a stream.
func (c *Cluster) Leader(tb testing.TB, stream string) *Server {
	tb.Helper()
	var leader *Server
	c.Nodes[0].await(tb, "able to say who leads "+stream, func(ctx context.Context) (bool, error) {
		name, err := c.Nodes[0].leader(ctx, stream)
		i := slices.IndexFunc(c.Nodes, func(s *Server) bool { return s.Name == name })
		if i >= 0 {
			leader = c.Nodes[i]
		}
		return i >= 0, err
	})
	return leader
}

// leader asks a server, which has a copy of the stream, who leads it.
func (s *Server) leader(ctx context.Context, stream string) (string, error) {
	var answer struct {
		Accounts []struct {
			Streams []struct {
				Name    string
				Cluster struct{ Leader string }
			} `json:"stream_detail"`
		} `json:"account_details"`
	}
	if err := s.ask(ctx, "/jsz", url.Values{"accounts": {"true"}, "streams": {"true"}}, &answer); err != nil {
		return "", err
	}
	for _, a := range answer.Accounts {
		for _, d := range a.Streams {
			if d.Name == stream {
				return d.Cluster.Leader, nil
			}
		}
	}
	return "", errors.New("there is no such stream")
}

// Cut has nothing pass between a server and the others, until Heal, and tells neither
// end. Clients reach it.
func (c *Cluster) Cut(tb testing.TB, node *Server) {
	tb.Helper()
	i := slices.Index(c.Nodes, node)
	for _, l := range c.links {
		if l.from == i || l.to == i {
			l.set(tb, faultproxy.Held)
		}
	}
}

func (l link) set(tb testing.TB, f faultproxy.Fault) {
	tb.Helper()
	if err := l.Set(f); err != nil {
		tb.Fatal(err)
	}
}

// Heal ends what Cut began, and returns when every server is up to date.
func (c *Cluster) Heal(tb testing.TB) {
	tb.Helper()
	for _, l := range c.links {
		l.set(tb, faultproxy.None)
	}
	c.Await(tb)
}
