// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/faultproxy"
	"github.com/keyturn/keyturn/internal/race"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks")) // Pebble has no end
}

// Times of the matrix. The certificate is renewed ten seconds after it was made: in each
// fault a renewal is due. After a failure it is tried again the later the longer it has
// to live: with a longer life that would be later than what is promised.
const (
	lifetime = 100 * time.Second
	early    = 10 * time.Second
	lasts    = 20 * time.Second // of a fault
)

// heals is the promise: how long after a fault all have found together. It is looked at
// without the race detector, and so is that what is served is valid: with it, all other
// packages run at the same time, and what is left is to look for races.
const heals = 30 * time.Second

// A phase is the moment of a renewal at which a fault begins.
type phase string

const (
	before phase = "before" // nothing is under way
	during phase = "during" // the generation is claimed, and not there
	after  phase = "after"  // it is committed, and perhaps nobody has it yet
)

// TestPartitions breaks each link in each way at each moment of a renewal. While the
// fault lasts, a certificate that is valid is served, and afterwards all is as if there
// had been none: the generations that came are served, renewals go on, and what managers
// say is heard.
func TestPartitions(t *testing.T) {
	within := heals
	if race.Enabled {
		within = patience
	}
	s := newServers(t, lifetime)
	var all sync.WaitGroup // they wait most of the time: all at once, whatever -parallel is
	defer all.Wait()
	links := []string{"manager-bus", "replica-bus", "manager-issuer"}
	for i, link := range links {
		for j, fault := range faultproxy.Faults() {
			if race.Enabled && j%len(links) != i {
				continue
			}
			all.Go(func() {
				t.Run(link+"/"+string(fault), func(t *testing.T) {
					f := s.fleet(t, link+"-"+string(fault), lifetime-early)
					for _, at := range []phase{before, during, after} {
						f.partition(f.links[link], fault, at, within)
					}
					f.consistent()
				})
			})
		}
	}
}

// servers are those that all fleets share: a tenant's bus each, and a CA.
type servers struct {
	bus *embedded.Server
	ca  *acmetest.CA
}

func newServers(t *testing.T, lifetime time.Duration) *servers {
	t.Helper()
	server, err := embedded.Start(embedded.Config{Dir: filepath.Join(t.TempDir(), "bus"), Listen: "127.0.0.1:0", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	return &servers{server, acmetest.Start(t, acmetest.Options{NoValidation: true, Profiles: map[string]time.Duration{"default": lifetime}})}
}

var quiet = slog.New(slog.DiscardHandler)

// A fleet is a manager, a replica, and the links that they have to the servers. Watch is
// another manager, whose links do not break: it only looks.
type fleet struct {
	t       *testing.T
	links   map[string]*faultproxy.Proxy
	watch   *manager.Manager
	replica *replica.Replica
	roots   *x509.CertPool
	id      string
}

const name = "www.example.com"

func (s *servers) fleet(t *testing.T, tenant string, before time.Duration) *fleet {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	busAddr, err := url.Parse(s.bus.URL())
	must(err)
	directory, err := url.Parse(s.ca.Directory())
	must(err)
	f := &fleet{t: t, roots: x509.NewCertPool(), links: map[string]*faultproxy.Proxy{
		"manager-bus":    faultproxy.Start(t, busAddr.Host),
		"replica-bus":    faultproxy.Start(t, busAddr.Host),
		"manager-issuer": faultproxy.Start(t, directory.Host),
	}}
	for _, root := range s.ca.Roots() {
		f.roots.AddCert(root)
	}
	through := func(u url.URL, link string) string {
		u.Host = f.links[link].Addr()
		return u.String()
	}

	dir := t.TempDir()
	_, err = s.bus.Create(t.Context(), tenant, "")
	must(err)
	creds, err := s.bus.ManagerCreds(tenant)
	must(err)
	must(os.WriteFile(filepath.Join(dir, bus.ManagerCreds), creds, 0o600))
	identity, err := seal.NewIdentity()
	must(err)
	group, err := seal.GenerateKey()
	must(err)
	newManager := func(url string) *manager.Manager {
		conn, err := jetstream.Connect(jetstream.Options{URL: url, Creds: filepath.Join(dir, bus.ManagerCreds), Tenant: tenant, Logger: quiet})
		must(err)
		t.Cleanup(conn.Close)
		m, err := manager.New(manager.Config{
			Log: conn, Identity: identity, Tenant: tenant, Logger: quiet, Every: time.Second,
			Keys: func(string) ([]*seal.PrivateKey, error) { return []*seal.PrivateKey{group}, nil },
			Mint: func(secret []byte) (manager.Credentials, error) { return jetstream.NewMint(secret) },
			Solvers: func(string, config.Solver, []string) (solver.Solver, []string, error) {
				return nobody{}, []string{solver.DNS01}, nil
			},
		})
		must(err)
		return m
	}
	f.watch = newManager(s.bus.URL())
	m := newManager(through(*busAddr, "manager-bus"))
	must(m.Init(t.Context()))
	must(m.AddGroup(t.Context(), manager.DefaultGroup, group.Public()))
	must(m.SetBusInfo(t.Context(), &event.BusInfo{URLs: []string{through(*busAddr, "replica-bus")}}, s.bus.Secret(tenant)))
	_, err = m.UpdateConfig(t.Context(), []byte(shared(s.ca, through(*directory, "manager-issuer"))), bus.Position{})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	soon, err := config.ParseRenewBefore(before.String())
	must(err)
	c, err := m.Make(t.Context(), manager.Request{Names: []string{name}, RenewBefore: soon})
	must(err)
	f.id = c.ID

	token, err := m.NewToken(t.Context(), manager.DefaultGroup, 0)
	must(err)
	host := filepath.Join(dir, "host")
	_, err = replica.Join(t.Context(), replica.JoinConfig{Token: token, Dir: host, Name: "host", Logger: quiet})
	must(err)
	f.replica, err = replica.Open(t.Context(), replica.Config{Dir: host, Logger: quiet})
	must(err)
	t.Cleanup(func() { _ = f.replica.Close() })
	return f
}

// shared is the managers' configuration.
func shared(ca *acmetest.CA, directory string) string {
	return fmt.Sprintf(`resolvers: [%q]
solvers: {none: {type: exec, program: /bin/false}}
zones: {.: [none]}
issuers:
  pebble:
    type: acme
    directory: %s
    terms_agreed: true
    challenge: dns-01
    roots: |
      %s
`, ca.DNS.Addr(), directory, strings.ReplaceAll(strings.TrimSpace(ca.WebRoots()), "\n", "\n      "))
}

// nobody solves nothing: the CA takes every challenge for solved.
type nobody struct{}

func (nobody) Solve(context.Context, solver.Challenge) (func(context.Context) error, error) {
	return func(context.Context) error { return nil }, nil
}

// state is what stands on the bus.
func (f *fleet) state() *manager.Managed {
	f.t.Helper()
	for began := time.Now(); ; {
		c, err := f.watch.Get(f.t.Context(), f.id)
		if err == nil {
			return c
		}
		if time.Since(began) > patience { // a machine that is busy answers late
			f.t.Fatal(err)
		}
	}
}

// until looks at the state, and at what is served, until it is as wanted.
func (f *fleet) until(what string, within time.Duration, wanted func(*manager.Managed) bool) (took time.Duration) {
	f.t.Helper()
	began := time.Now()
	for {
		c := f.state()
		f.served()
		if wanted(c) {
			return time.Since(began)
		}
		if time.Since(began) > within {
			f.t.Fatalf("%s: not after %v: generation %d, claim %+v, failure %+v; the replica has %v, %+v",
				what, within, c.Generation, c.Claim, c.Failure, f.replica.Version(f.id), f.replica.Status())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// served looks that what a client gets is valid.
func (f *fleet) served() {
	f.t.Helper()
	cert, err := f.replica.Store().GetCertificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		f.t.Fatal(err)
	}
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			f.t.Fatal(err)
		}
		between.AddCert(c)
	}
	at := time.Now()
	if race.Enabled {
		at = cert.Leaf.NotBefore
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: f.roots, Intermediates: between, CurrentTime: at}); err != nil {
		f.t.Fatal("what is served is no good: ", err)
	}
}

// partition has a fault begin at a moment, ends it, and waits until all is well, for a
// time.
func (f *fleet) partition(link *faultproxy.Proxy, fault faultproxy.Fault, at phase, within time.Duration) {
	t := f.t
	t.Helper()
	n := f.state().Generation
	switch at {
	case during:
		f.until("claiming the next generation", patience, func(c *manager.Managed) bool { return c.Generation > n || c.Claim != nil })
	case after:
		f.until("committing the next generation", patience, func(c *manager.Managed) bool { return c.Generation > n })
	}
	if err := link.Set(fault); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < lasts; time.Sleep(50 * time.Millisecond) {
		f.served()
	}
	if err := link.Set(faultproxy.None); err != nil {
		t.Fatal(err)
	}
	took := f.until(fmt.Sprintf("finding together after %s, %s", fault, at), within, f.together(time.Now()))
	t.Logf("%s, %s: %v after it was healed", fault, at, took.Round(100*time.Millisecond))
}

// together reports whether all is well since a moment: what was made since is served,
// and what managers have said since was heard.
func (f *fleet) together(since time.Time) func(*manager.Managed) bool {
	f.t.Helper()
	n := f.state().Generation
	return func(c *manager.Managed) bool {
		s := f.replica.Status()
		return c.Generation > n && f.replica.Version(f.id) == c.Version && s.Following && !s.Differs && s.Beacon.After(since)
	}
}

// consistent looks at the history: a certificate for each generation, and none twice.
func (f *fleet) consistent() {
	f.t.Helper()
	serials := make(map[string]bool)
	c := f.state()
	first := c.Generation - uint64(len(c.History)) + 1
	for i, g := range c.History {
		serial := fmt.Sprintf("%x", g.Serial)
		if g.Version.Generation != first+uint64(i) || serials[serial] {
			f.t.Errorf("generation %d stands where %d should, or its serial %s is there twice", g.Version.Generation, first+uint64(i), serial)
		}
		serials[serial] = true
	}
}

// patience is how long to wait for what is no matter of faults.
const patience = 4 * time.Minute
