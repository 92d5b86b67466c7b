// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testnet"
)

// A fleet is hosts of each kind, with the bus and whatever else leaves a host over
// TLS.
type fleet struct {
	t       *testing.T
	network *testnet.Network
	ops     *host // runs a manager, and the bus
	busAddr string
	manager *process
	user    *host // makes handshakes
}

// newFleet starts a manager that knows a CA and the group web.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	n := testnet.New(t)
	f := &fleet{t: t, network: n, ops: newHost(t, n, "ops")}
	f.user = newHost(t, n, "user")
	_, port, err := net.SplitHostPort(freeAddr(t)) // other tests may use the same machine's
	if err != nil {
		t.Fatal(err)
	}
	f.busAddr = net.JoinHostPort(f.ops.IP, port)
	f.startManager()
	conf := filepath.Join(f.ops.state, "conf.yaml")
	if err := os.WriteFile(conf, []byte("issuers:\n  internal:\n    type: local\n    lifetime: 30d\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := f.ops.command("sh", "-c", `exec "$0" conf update <"$1"`, keyturn, conf); err != nil || p.code != 0 {
		t.Fatalf("%s: %v\n%s", p, err, p.err.String())
	}
	f.ops.keyturn("group", "mk", "web")
	return f
}

// startManager starts the manager that runs the bus. Loopback addresses go without
// TLS, so that hosts that are not apart need another one.
func (f *fleet) startManager() {
	f.t.Helper()
	_, port, _ := net.SplitHostPort(f.busAddr)
	args := []string{"--nats", f.busAddr}
	if !f.ops.Apart {
		args = []string{"--nats", "0.0.0.0:" + port, "--advertise", f.ops.IP}
	}
	f.manager = f.serve(f.ops, args...)
}

// serve runs a manager on a host.
func (f *fleet) serve(h *host, flags ...string) *process {
	f.t.Helper()
	p := h.start(keyturn, append([]string{"serve", "--http", "127.0.0.1:0"}, flags...)...)
	eventually(f.t, "a manager on "+h.Name, func() error {
		if p.ended() {
			f.t.Fatalf("%s: exit code %d\n%s", p, p.code, tail(p.err.String()))
		}
		if !strings.Contains(p.err.String(), "keyturn serves") {
			return fmt.Errorf("it is not up:\n%s", tail(p.err.String()))
		}
		return nil
	})
	return p
}

// addManager makes a manager's directory, and moves it to a host.
func (f *fleet) addManager(h *host) {
	f.t.Helper()
	dir := filepath.Join(f.ops.state, h.Name)
	f.ops.keyturn("manager", "add", h.Name, "--dir", dir)
	if err := os.Rename(dir, h.data); err != nil {
		f.t.Fatal(err)
	}
}

// token makes a join token.
func (f *fleet) token(group string) string {
	f.t.Helper()
	return strings.TrimSpace(f.ops.keyturn("replica", "token", group))
}

// A balancer is a host that serves a group's certificates.
type balancer struct {
	*host
	dir    string // the joined one
	server *process
}

// join has a host join a group.
func (f *fleet) join(h *host, group string) *balancer {
	f.t.Helper()
	b := &balancer{host: h, dir: filepath.Join(h.state, "replica")}
	h.keyturn("replica", "join", f.token(group), "--dir", b.dir, "--name", h.Name)
	return b
}

func (b *balancer) addr() string { return net.JoinHostPort(b.IP, "8443") }

// start serves, and returns when somebody can connect.
func (b *balancer) start(from *host) {
	b.t.Helper()
	b.server = b.host.start(exampleServer, "--dir", b.dir, "--listen", b.addr())
	eventually(b.t, "the server on "+b.Name, func() error {
		if b.server.ended() {
			b.t.Fatalf("%s: exit code %d\n%s", b.server, b.server.code, tail(b.server.err.String()))
		}
		conn, err := from.Dial(b.t.Context(), b.addr())
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// client makes handshakes from the user's host. It knows the issuer of the
// certificate and nothing else.
func (f *fleet) client(b *balancer, id, name string) *client {
	f.t.Helper()
	chain, err := parseChain(f.ops.cat(id).Certificate.ChainPEM)
	if err != nil {
		f.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(chain[len(chain)-1])
	return &client{&tls.Config{RootCAs: roots, ServerName: name}, b.addr(), f.user.Dial}
}

// A load makes handshakes with one balancer, all the time.
type load struct {
	stop, done chan struct{}
	made       int   // to be read when done is closed
	err        error // the first
}

func (c *client) load() *load {
	l := &load{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for l.err == nil {
			select {
			case <-l.stop:
				return
			case <-time.After(5 * time.Millisecond): // leaves the machine to the others
			}
			_, l.err = c.handshake()
			l.made++
		}
	}()
	return l
}

// end ends the load and returns how many handshakes were made, all of them good.
func (l *load) end(t *testing.T, name string) int {
	t.Helper()
	close(l.stop)
	<-l.done
	if l.err != nil {
		t.Errorf("handshake %d with %s: %v", l.made, name, l.err)
	}
	return l.made
}
