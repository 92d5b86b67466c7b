// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
	"github.com/keyturn/keyturn/solver"
)

// newBus starts a NATS server and returns it, and a manager's connection.
func newBus(t *testing.T) (*embedded.Server, bus.Conn) {
	t.Helper()
	dir, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	server, err := embedded.Start(embedded.Config{Dir: filepath.Join(dir, "bus"), Listen: "127.0.0.1:0", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	if _, err := server.Create(t.Context(), DefaultTenant, ""); err != nil {
		t.Fatal(err)
	}
	creds, err := server.ManagerCreds(DefaultTenant)
	if err != nil {
		t.Fatal(err)
	}
	roots := new(strings.Builder)
	for _, der := range server.Roots() {
		_ = pem.Encode(roots, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // a Builder takes all
	}
	for name, text := range map[string]string{bus.URLFile: server.URL(), bus.ManagerCreds: string(creds), bus.RootsFile: roots.String()} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := bus.OpenDir(dir, bus.Options{Creds: bus.ManagerCreds, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return server, conn
}

// A frontend is a host with a replica, plain HTTP and HTTPS, and counts what CAs asked.
type frontend struct {
	*replica.Replica
	name          string
	byHTTP, byTLS atomic.Int64
}

// newFrontend joins a host to the default group and has it listen on its own address.
func newFrontend(t *testing.T, m *Manager, name, ip string, ca *acmetest.CA) *frontend {
	t.Helper()
	dir, quiet := filepath.Join(t.TempDir(), name), slog.New(slog.DiscardHandler)
	if _, err := replica.Join(t.Context(), replica.JoinConfig{Token: newToken(t, m), Dir: dir, Name: name, Logger: quiet}); err != nil {
		t.Fatal(err)
	}
	r, err := replica.Open(t.Context(), replica.Config{Dir: dir, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	f := &frontend{Replica: r, name: name}
	answers := r.HTTPHandler(nil)
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.byHTTP.Add(1)
		answers.ServeHTTP(w, r)
	})
	secure := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a CA was served") })
	config := r.Store().ServerConfig()
	configFor := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config, err := configFor(hello)
		if config != nil {
			f.byTLS.Add(1)
		}
		return config, err
	}
	f.serve(t, net.JoinHostPort(ip, strconv.Itoa(ca.HTTPPort)), plain, nil)
	f.serve(t, net.JoinHostPort(ip, strconv.Itoa(ca.TLSPort)), secure, config)
	return f
}

func (f *frontend) serve(t *testing.T, addr string, handler http.Handler, config *tls.Config) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
}

// TestReplicasAnswerACA: Pebble looks at two hosts, of which neither is the manager, and
// both answer for every name that it asks for, by HTTP and by TLS, addresses included.
func TestReplicasAnswerACA(t *testing.T) {
	server, conn := newBus(t)
	identity, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	group, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{
		Log: conn, Identity: identity, Logger: slog.New(slog.DiscardHandler), Keys: holding(group),
		Mint: func(secret []byte) (Credentials, error) { return jetstream.NewMint(secret) },
	})
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.Init(t.Context()))
	must(m.AddGroup(t.Context(), DefaultGroup, group.Public()))
	_, err = m.UpdateConfig(t.Context(), []byte(sharedConfig), bus.Position{})
	must(err)
	must(m.SetBusInfo(t.Context(), &event.BusInfo{URLs: server.URLs(), Roots: server.Roots()}, server.Secret(DefaultTenant)))
	defer run(t, m)()

	pebble := acmetest.Start(t, acmetest.Options{})
	pebble.DNS.A("two.example.com", "127.0.0.2")
	pebble.DNS.A("three.example.com", "127.0.0.3")
	two, three := newFrontend(t, m, "two", "127.0.0.2", pebble), newFrontend(t, m, "three", "127.0.0.3", pebble)
	for m.Live(Query{}) == nil || m.Live(Query{}).Groups[0].Members != 2 || m.Live(Query{}).Groups[0].Unreported != 0 {
		if t.Context().Err() != nil {
			t.Fatal("the replicas do not report")
		}
		time.Sleep(10 * time.Millisecond)
	}
	account, err := acme.NewAccount()
	must(err)
	ca, err := acme.New(acme.Config{
		Name: "pebble", Directory: pebble.Directory(), Roots: pebble.WebPool(), TermsAgreed: true,
		Account: account, Solve: m.solve, SkipCAA: true,
	})
	must(err)
	defer ca.Close()

	for kind, asked := range map[string]func(*frontend) *atomic.Int64{
		solver.HTTP01:    func(f *frontend) *atomic.Int64 { return &f.byHTTP },
		solver.TLSALPN01: func(f *frontend) *atomic.Int64 { return &f.byTLS },
	} {
		key, err := issuer.KeyType("").Generate()
		must(err)
		csr, err := issuer.NewRequest(key, []string{"two.example.com", "three.example.com", "127.0.0.2", "127.0.0.3"})
		must(err)
		chain, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: csr, Challenge: kind, Group: DefaultGroup})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if _, err := issuer.Check(chain, csr, time.Now()); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for _, f := range []*frontend{two, three} {
			if n := asked(f).Load(); n < 2 {
				t.Errorf("%s: %s was asked %d times, want 2 at least", kind, f.name, n)
			}
		}
		for two.Status().Challenges+three.Status().Challenges > 0 { // they are taken back
			if t.Context().Err() != nil {
				t.Fatal("challenges are left behind")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}

	// One that is stopped was live just now: nobody is asked to look, and it is named.
	must(three.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err = m.solve(ctx, solver.Challenge{
		Type: solver.HTTP01, Name: "two.example.com", Group: DefaultGroup,
		Token: strings.Repeat("t", 43), KeyAuthorization: strings.Repeat("t", 43) + ".thumbprint",
	})
	var unanswered *UnansweredError
	if !errors.As(err, &unanswered) || unanswered.Answered != 1 || len(unanswered.Missing) != 1 || unanswered.Missing[0].Name != "three" {
		t.Errorf("%v", err)
	}
}
