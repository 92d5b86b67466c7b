// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// A web is a manager with its bus, the group web with certificates of the
// built-in CA, and replicas of it, each in a process of its own on loopback.
type web struct {
	*sandbox          // of the manager
	manager  *process // nil while none runs
	nats     string   // where the bus is, over restarts
	roots    *x509.CertPool
	replicas []*webReplica
	watch    *watch
}

// A webReplica is a host that joined, and examples/server on it.
type webReplica struct {
	*sandbox
	name, dir, addr string
	server          *process
	roots           *x509.CertPool
	// mu is held during a handshake of the watch, and by whoever stops the server.
	mu sync.Mutex
}

// newWeb starts a manager, has it make a certificate for each of n names, lets
// replicas join and watches them until the test ends.
func newWeb(t *testing.T, n, replicas int) *web {
	t.Helper()
	w := &web{sandbox: newSandbox(t), nats: freeAddr(t), watch: newWatch()}
	w.data = filepath.Join(w.state, "keyturn")
	w.serve()
	conf := filepath.Join(w.state, "conf.yaml")
	if err := os.WriteFile(conf, []byte("default_issuer: internal\nissuers: {internal: {type: local}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err := w.command("/bin/sh", "-c", `exec "$0" conf update < "$1"`, keyturn, conf); err != nil || p.code != 0 {
		t.Fatal(err, p.err.String())
	}
	w.keyturn("group", "mk", "web")
	var making sync.WaitGroup
	names := make(chan string)
	for range 4 {
		making.Go(func() {
			for name := range names {
				if _, err := w.mk(name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		names <- fmt.Sprintf("c%02d.web.example", i)
	}
	close(names)
	making.Wait()
	if t.Failed() {
		t.FailNow()
	}
	w.readRoots()
	for i := range replicas {
		w.join(fmt.Sprintf("lb%d", i+1), w.keyturn("replica", "token", "web"))
	}
	for name := range w.list() {
		w.watch.add(name)
	}
	for _, r := range w.replicas {
		w.converged(r)
		w.watch.start(t, r)
	}
	return w
}

// serve starts the manager and waits until it serves. The bus is where it was.
func (w *web) serve() {
	w.t.Helper()
	w.manager = w.serveOn(w.sandbox, "--nats", w.nats)
}

// serveOn starts a manager of the sandbox, and waits until it serves. A port that
// somebody else has for a moment is tried again.
func (w *web) serveOn(s *sandbox, flags ...string) *process {
	w.t.Helper()
	return w.serveBy(keyturn, s, flags...)
}

// serveBy is serveOn with another build of keyturn.
func (w *web) serveBy(program string, s *sandbox, flags ...string) (p *process) {
	w.t.Helper()
	args := append([]string{"serve", "--data", s.data, "--http", "127.0.0.1:0"}, flags...)
	p = s.start(program, args...)
	eventually(w.t, "keyturn serve", func() error {
		switch {
		case strings.Contains(p.err.String(), `msg="keyturn serves"`):
			return nil
		case p.ended() && strings.Contains(p.err.String(), "is in use by another program"):
			p = s.start(program, args...)
		case p.ended():
			w.t.Fatalf("%s: exit code %d\n%s", p, p.code, tail(p.err.String()))
		}
		return fmt.Errorf("it does not serve\n%s", tail(p.err.String()))
	})
	return p
}

// mk makes a certificate for one name and returns its id.
func (w *web) mk(name string) (string, error) {
	out, err := w.try("cert", "mk", name, "--subdomain", "--group", "web")
	return strings.TrimSpace(out), err
}

// readRoots takes the issuing CA of any certificate as what clients trust.
func (w *web) readRoots() {
	w.t.Helper()
	for _, id := range w.list() {
		chain, err := parseChain(w.cat(id).Certificate.ChainPEM)
		if err != nil || len(chain) < 2 {
			w.t.Fatalf("the chain of %s has %d certificates: %v", id, len(chain), err)
		}
		w.roots = x509.NewCertPool()
		w.roots.AddCert(chain[len(chain)-1])
		return
	}
	w.t.Fatal("no certificate is managed")
}

// join lets a host join by a token, and starts its server.
func (w *web) join(name, token string) *webReplica {
	w.t.Helper()
	r := w.host(name)
	r.keyturn("replica", "join", strings.TrimSpace(token), "--dir", r.dir, "--name", name)
	r.start(w.t)
	return r
}

// host adds a host, which has not joined yet.
func (w *web) host(name string) *webReplica {
	s := newSandbox(w.t)
	r := &webReplica{sandbox: s, name: name, dir: filepath.Join(s.state, "joined"), addr: freeAddr(w.t), roots: w.roots}
	w.replicas = append(w.replicas, r)
	return r
}

// start starts the host's server.
func (r *webReplica) start(t *testing.T) {
	t.Helper()
	r.server = r.sandbox.start(exampleServer, "--dir", r.dir, "--listen", r.addr)
}

// client returns a client of the host's server.
func (r *webReplica) client(name string) *client {
	return &client{config: &tls.Config{RootCAs: r.roots, ServerName: name}, addr: r.addr}
}

// A row is one of "cert ls".
type row struct {
	ID, Serial, Group string
	Names             []string
	Epoch, Generation uint64
}

// rows runs "cert ls".
func (s *sandbox) rows() (rows []row) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.keyturn("cert", "ls", "--output", "json")), &rows); err != nil {
		s.t.Fatalf("cert ls: %v", err)
	}
	return rows
}

// converged waits until a replica serves what "cert ls" says.
func (w *web) converged(r *webReplica) {
	w.t.Helper()
	for _, c := range w.rows() {
		client := r.client(c.Names[0])
		eventually(w.t, r.name, func() error {
			if r.server.ended() {
				w.t.Fatalf("%s: exit code %d\n%s", r.server, r.server.code, tail(r.server.err.String()))
			}
			return client.sees(c.Serial)
		})
	}
}

// allConverged waits until every replica does.
func (w *web) allConverged() {
	w.t.Helper()
	for _, r := range w.replicas {
		w.converged(r)
	}
}

// histories returns the serial numbers of all generations of the certificates
// that are managed now, by name.
func (w *web) histories() map[string]map[string]bool {
	w.t.Helper()
	all := make(map[string]map[string]bool)
	for name, id := range w.list() {
		all[name] = make(map[string]bool)
		for _, g := range w.cat(id).History {
			all[name][g.Serial] = true
		}
	}
	return all
}
