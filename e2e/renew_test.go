// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/race"
)

// TestRenewalsUnderHandshakes turns the edge's certificate fifty times from
// outside while clients make handshakes all the time: none fails, each new leaf
// is served at once, and what is connected stays connected.
func TestRenewalsUnderHandshakes(t *testing.T) {
	const renewals = 50
	// The new leaf is to be seen within a second of the command's return. The race
	// detector makes client and server several times slower, and with it the machine
	// has all the programs of this test to slow down at once.
	limit := time.Second
	if race.Enabled {
		limit = 10 * time.Second
	}
	s := newSandbox(t)
	in := s.serve("--dev-lifetime", "1h") // so long that only the command turns it
	id := s.edgeID()
	base := s.client(t, in.edge, "localhost")

	var stop atomic.Bool
	var workers sync.WaitGroup
	defer workers.Wait()
	defer stop.Store(true)
	var made atomic.Uint64 // connections, all over

	type kind struct {
		version uint16
		resume  bool
	}
	type count struct{ handshakes, resumed, leaves int }
	var mu sync.Mutex
	counts := make(map[kind]count) // guarded by mu
	for _, k := range []kind{{tls.VersionTLS12, false}, {tls.VersionTLS12, true}, {tls.VersionTLS13, false}, {tls.VersionTLS13, true}} {
		c := base.with(k.version, k.resume)
		workers.Go(func() {
			var n count
			leaves := make(map[string]bool)
			for !stop.Load() {
				state, err := c.handshake()
				if err != nil {
					t.Errorf("%s, to be resumed: %v: handshake %d: %v", tls.VersionName(k.version), k.resume, n.handshakes+1, err)
					break
				}
				made.Add(1)
				n.handshakes++
				if state.DidResume {
					n.resumed++
				}
				leaves[serialOf(state.PeerCertificates[0])] = true
			}
			n.leaves = len(leaves)
			mu.Lock()
			defer mu.Unlock()
			counts[k] = n
		})
	}
	requests := make(map[bool]*keptConn)
	for _, h2 := range []bool{false, true} {
		kept := newKeptConn(base, h2)
		requests[h2] = kept
		workers.Go(func() {
			defer kept.transport.CloseIdleConnections()
			for !stop.Load() {
				time.Sleep(10 * time.Millisecond) // the handshakes need the machine, too
				if err := kept.request(); err != nil {
					t.Errorf("connection of %s, request %d: %v", kept.proto, kept.requests+1, err)
					return
				}
			}
		})
		made.Add(1)
	}

	var worst, sum time.Duration
	var last uint64
	for i := range renewals {
		g, err := s.renew(id)
		returned := time.Now()
		if err != nil {
			t.Fatal(err)
		}
		if g.Generation <= last {
			t.Fatalf("renewal %d made generation %d after %d", i+1, g.Generation, last)
		}
		last = g.Generation
		eventually(t, fmt.Sprintf("renewal %d", i+1), func() error {
			state, err := base.handshake()
			if err != nil {
				t.Fatalf("renewal %d: %v", i+1, err)
			}
			made.Add(1)
			if got := serialOf(state.PeerCertificates[0]); got != g.Serial {
				return fmt.Errorf("serial %s is served, not %s", got, g.Serial)
			}
			return nil
		})
		delay := time.Since(returned)
		worst, sum = max(worst, delay), sum+delay
		if t.Failed() {
			break // a worker's
		}
	}
	if worst > limit {
		t.Errorf("a new leaf was first seen %v after the command's return, want at most %v", worst, limit)
	}
	stop.Store(true)
	workers.Wait()

	c := s.cat(id)
	if err := c.consistent(); err != nil {
		t.Error(err)
	}
	if want := uint64(renewals + 1); c.Generation != want {
		t.Errorf("generation %d after %d renewals, want %d", c.Generation, renewals, want)
	}
	for k, n := range counts {
		if k.resume == (n.resumed == 0) {
			t.Errorf("%s, to be resumed: %v: of %d handshakes %d were resumed", tls.VersionName(k.version), k.resume, n.handshakes, n.resumed)
		}
		if !k.resume && n.leaves < renewals/2 {
			t.Errorf("%s: %d handshakes saw %d leaves only", tls.VersionName(k.version), n.handshakes, n.leaves)
		}
		t.Logf("%s: %d handshakes, %d of them resumed, %d leaves", tls.VersionName(k.version), n.handshakes, n.resumed, n.leaves)
	}
	for _, kept := range requests {
		t.Logf("%s: %d requests on one connection", kept.proto, kept.requests)
	}
	t.Logf("a new leaf was seen %v after the command's return at worst, %v on average", seconds(worst), seconds(sum/renewals))

	// The edge counts for itself, and has to come to the same.
	state := in.edgeState(t)
	if state.Failed != 0 || state.Served != made.Load() {
		t.Errorf("the edge counts %d handshakes, %d failed; the clients made %d", state.Served, state.Failed, made.Load())
	}
	if n := in.metric(t, `keyturn_edge_handshakes_total{result="failed"}`); n != 0 {
		t.Errorf("/metrics counts %v failed handshakes", n)
	}
	if n := in.metric(t, `keyturn_edge_handshakes_total{result="served"}`); n != float64(made.Load()) {
		t.Errorf("/metrics counts %v handshakes, the clients made %d", n, made.Load())
	}
	in.stop(t, sigterm)
}

// A keptConn makes requests on one connection.
type keptConn struct {
	transport *http.Transport
	proto     string
	leaf      string // the serial number that it began with
	requests  int
}

func newKeptConn(c *client, h2 bool) *keptConn {
	k := &keptConn{transport: c.transport(h2), proto: "HTTP/1.1"}
	if h2 {
		k.proto = "HTTP/2.0"
	}
	return k
}

func (k *keptConn) request() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var reused bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://localhost/state", nil)
	if err != nil {
		return err
	}
	resp, err := k.transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	leaf := serialOf(resp.TLS.PeerCertificates[0])
	switch {
	case resp.StatusCode != http.StatusOK:
		return errors.New(resp.Status)
	case resp.Proto != k.proto:
		return fmt.Errorf("it is %s", resp.Proto)
	case k.requests > 0 && !reused:
		return errors.New("it went over another connection")
	case k.requests > 0 && leaf != k.leaf:
		return fmt.Errorf("the leaf of the connection was %s and is %s", k.leaf, leaf)
	}
	k.leaf = leaf
	k.requests++
	return nil
}
