// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

// managers is a fleet's worth of "keyturn serve" on one bus, which the first of
// them runs. The sandbox's commands work in a directory of their own.
type managers struct {
	*sandbox
	nats string // address of the bus, over restarts
	all  []*daemon
}

// A daemon is one "keyturn serve" over its restarts.
type daemon struct {
	name, dir string
	flags     []string
	key       seal.KeyID // by which it signs
	instance  string     // by which it claims
	runs      []*process
}

// now is the process that runs, or was the last to.
func (m *daemon) now() *process { return m.runs[len(m.runs)-1] }

// newManagers starts n managers, and makes a directory for one that does not run.
func newManagers(t *testing.T, n int) *managers {
	t.Helper()
	f := &managers{sandbox: newSandbox(t)}
	f.data = filepath.Join(f.state, "m0")
	f.add("m0", "--nats", "127.0.0.1:0")
	f.nats = f.up(f.all[0])
	f.all[0].flags[len(f.all[0].flags)-1] = f.nats // the others know it by this port
	f.env = append(f.env, "KEYTURN_DATA="+f.data)
	lib, _ := f.library(f.data)
	if _, err := lib.UpdateConfig(t.Context(), []byte("issuers: {internal: {type: local}}\n"), bus.Position{}); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("m%d", i)
		f.keyturn("manager", "add", name, "--dir", filepath.Join(f.state, name))
		if i < n {
			f.up(f.add(name))
		} else {
			f.data = filepath.Join(f.state, name) // whose commands are the sandbox's
			f.env[len(f.env)-1] = "KEYTURN_DATA=" + f.data
		}
	}
	return f
}

func (f *managers) add(name string, flags ...string) *daemon {
	m := &daemon{name: name, dir: filepath.Join(f.state, name)}
	m.flags = append([]string{"serve", "--data", m.dir, "--http", "127.0.0.1:0", "--log-level", "debug"}, flags...)
	f.all = append(f.all, m)
	return m
}

var servesLine = regexp.MustCompile(`msg="keyturn serves" .*bus=nats://(\S+)`)

// up starts a manager for the first time, waits until it serves, and returns
// where the bus is.
func (f *managers) up(m *daemon) string {
	f.t.Helper()
	if err := f.restart(m); err != nil {
		f.t.Fatal(err)
	}
	d := datadir.At(m.dir)
	identity, err := d.Identity()
	if err != nil {
		f.t.Fatal(err)
	}
	m.key = identity.Signing.Public().ID()
	if m.instance, err = d.Instance(); err != nil {
		f.t.Fatal(err)
	}
	return servesLine.FindStringSubmatch(m.now().err.String())[1]
}

// restart starts a manager, as often as a service manager would while it does
// not find the bus.
func (f *managers) restart(m *daemon) error {
	return poll(func() error {
		p := f.start(keyturn, m.flags...)
		m.runs = append(m.runs, p)
		if err := poll(func() error {
			if p.ended() || servesLine.MatchString(p.err.String()) {
				return nil
			}
			return fmt.Errorf("%s: it does not come up\n%s", p, tail(p.err.String()))
		}); err != nil {
			return err
		}
		if p.ended() {
			return &exitError{p}
		}
		return nil
	})
}

// library is a manager that does not run, in this process, on the directory of
// one.
func (f *managers) library(dir string) (*manager.Manager, bus.Conn) {
	f.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	conn, err := bus.OpenDir(dir, bus.Options{Creds: bus.ManagerCreds, Logger: quiet})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(conn.Close)
	d := datadir.At(dir)
	c := manager.Config{Log: conn, Keys: d.GroupKeys, Logger: quiet}
	if c.Identity, err = d.Identity(); err != nil {
		f.t.Fatal(err)
	}
	if c.Managers, err = d.Managers(); err != nil {
		f.t.Fatal(err)
	}
	m, err := manager.New(c)
	if err != nil {
		f.t.Fatal(err)
	}
	return m, conn
}

// A shaker makes handshakes with a replica's server.
type shaker struct {
	*client
	server *process
}

// as is a client that asks for another name.
func (s *shaker) as(name string) *client {
	config := s.config.Clone()
	config.ServerName = name
	return &client{config: config, addr: s.addr}
}

// replica starts examples/server on a directory that joined.
func (f *managers) replica(dir string) *shaker {
	f.t.Helper()
	lib, _ := f.library(f.data)
	roots, err := lib.Roots(f.t.Context(), "internal")
	if err != nil {
		f.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	for _, der := range roots {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			f.t.Fatal(err)
		}
		pool.AddCert(c)
	}
	addr := freeAddr(f.t)
	r := &shaker{client: &client{config: &tls.Config{RootCAs: pool, ServerName: nameOf(0)}, addr: addr}}
	r.server = f.start(exampleServer, "--dir", dir, "--listen", addr)
	eventually(f.t, "the replica's server", func() error {
		if r.server.ended() {
			f.t.Fatal(&exitError{r.server})
		}
		_, err := r.handshake()
		return err
	})
	return r
}

// shakeHands makes handshakes for the first n names all the time. The returned
// function ends that.
func (f *managers) shakeHands(r *shaker, n int) func() {
	for i := range n {
		eventually(f.t, nameOf(i), func() error {
			_, err := r.as(nameOf(i)).handshake()
			return err
		})
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	f.t.Cleanup(func() {
		stop.Store(true)
		wg.Wait()
	})
	var made int
	wg.Go(func() {
		for ; !stop.Load(); made++ {
			if _, err := r.as(nameOf(rand.IntN(n))).handshake(); err != nil {
				f.t.Errorf("handshake %d: %v", made+1, err)
				return
			}
			time.Sleep(10 * time.Millisecond) // the managers need the machine, too
		}
	})
	return func() {
		f.t.Helper()
		stop.Store(true)
		wg.Wait()
		f.t.Logf("%d handshakes with the replica", made)
		r.server.stop(f.t, sigterm)
	}
}
