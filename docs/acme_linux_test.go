// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/nameserver"
)

// TestACMEGuide follows acme.md word by word, each block on its host. Nothing in it
// is replaced to keep it from the real CA: the hosts reach the world through a
// proxy, and there Pebbles have the names, and certificates for the names, of
// Let's Encrypt.
func TestACMEGuide(t *testing.T) {
	g := newGuide(t, "ops", "lb1", "lb2", "ns1", "world")
	names := g.nameServer("example.com")
	balancers := g.balancers("lb1", "lb2")
	staging := g.pebble(names, balancers)
	production := g.pebble(names, balancers)
	g.world(map[string]*acmetest.CA{
		"acme-staging-v02.api.letsencrypt.org": staging,
		"acme-v02.api.letsencrypt.org":         production,
	})
	serials := g.follow("acme.md")

	// The wildcard on both hosts, renewed on both, and the certificate of www.
	if len(serials) != 5 || serials[0] != serials[1] || serials[2] != serials[3] || len(slices.Compact(slices.Clone(serials))) != 3 {
		t.Fatalf("the serials are %q: want two of both hosts, and one more", serials)
	}
	for ca, want := range map[*acmetest.CA]int{staging: 1, production: 2} {
		if n := ca.Finalized("*.example.com", "example.com"); n != want {
			t.Errorf("%d orders for the wildcard, want %d", n, want)
		}
	}
	for i, serial := range serials {
		n, ok := new(big.Int).SetString(serial, 16)
		if !ok {
			t.Fatalf("%q is no serial", serial)
		}
		_, revoked := production.Revoked(&x509.Certificate{SerialNumber: n})
		if want := i == len(serials)-1; revoked != want {
			t.Errorf("that the certificate %s is revoked is %v", serial, revoked)
		}
	}
	for _, addr := range []string{"lb1:80", "lb1:443", "lb2:80", "lb2:443"} {
		if balancers.times(addr) == 0 {
			t.Errorf("no CA asked %s", addr)
		}
	}
}

// nameServer starts one for a zone on the host ns1, which lets ops change it. All
// names have the address where the balancers are.
func (g *guide) nameServer(zone string) *nameserver.Server {
	g.t.Helper()
	ns := g.hosts["ns1"]
	o := nameserver.Options{Zones: []string{zone}, NameServers: []string{ns.IP}, KeyName: "keyturn"}
	for _, name := range []string{"www.", "api."} {
		o.Records = append(o.Records, name+zone+". 60 A 127.0.0.1")
	}
	o.Records = append(o.Records, zone+`. 60 CAA 0 issue "letsencrypt.org"`)
	if !ns.Apart {
		o.Host = ns.IP
	}
	s := nameserver.Start(g.t, o)
	if ns.Apart {
		l, err := ns.Listen(53)
		if err != nil {
			g.t.Fatal(err)
		}
		relay(g.t, l, func() (net.Conn, error) { return net.Dial("tcp", s.Addr()) })
		p, err := ns.ListenPacket(53)
		if err != nil {
			g.t.Fatal(err)
		}
		relayPackets(g.t, p, s.Addr())
	}
	g.ports["53"] = s.Port()
	if err := os.WriteFile(filepath.Join(g.dir, "ops", "keyturn.tsig"), []byte(s.KeySecret+"\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return s
}

// balancers are where CAs get to, on a loopback address: the hosts in turn.
type balancers struct {
	plain, tls int // ports
	mu         sync.Mutex
	asked      map[string]int // guarded by mu; by name and port
}

func (g *guide) balancers(names ...string) *balancers {
	g.t.Helper()
	b := &balancers{asked: make(map[string]int)}
	b.plain, b.tls = b.pass(g, "80", names), b.pass(g, "443", names)
	return b
}

// times is how often a CA asked a port, such as "lb1:80".
func (b *balancers) times(addr string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[addr]
}

// pass returns the port from which connections are passed on to that of the hosts.
func (b *balancers) pass(g *guide, port string, names []string) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	var turn atomic.Uint32
	relay(g.t, l, func() (net.Conn, error) {
		h := g.hosts[names[int(turn.Add(1))%len(names)]]
		b.mu.Lock()
		b.asked[h.Name+":"+port]++
		b.mu.Unlock()
		return h.Dial(g.t.Context(), g.addr(h.Name, port))
	})
	return l.Addr().(*net.TCPAddr).Port
}

// pebble starts a CA that calls itself Let's Encrypt and asks a name server.
func (g *guide) pebble(names *nameserver.Server, b *balancers) *acmetest.CA {
	return acmetest.Start(g.t, acmetest.Options{
		Resolver: names.Addr(), HTTPPort: b.plain, TLSPort: b.tls, CAAIdentities: []string{"letsencrypt.org"},
	})
}

// world lets the guide's commands reach CAs by the given names, and nothing else,
// and trust them.
func (g *guide) world(cas map[string]*acmetest.CA) {
	g.t.Helper()
	front, cert := newFront(g.t, cas)
	roots := filepath.Join(g.dir, "roots.pem")
	if err := os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600); err != nil {
		g.t.Fatal(err)
	}
	l, err := g.hosts["world"].Listen(0)
	if err != nil {
		g.t.Fatal(err)
	}
	proxy := &http.Server{Handler: tunnel(g.t, front)}
	go func() { _ = proxy.Serve(l) }() // ends with Close
	g.t.Cleanup(func() { _ = proxy.Close() })
	g.env = append(g.env, "SSL_CERT_FILE="+roots, "NO_PROXY=", "HTTPS_PROXY=http://"+l.Addr().String())
}
