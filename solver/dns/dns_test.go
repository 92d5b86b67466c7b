// SPDX-License-Identifier: Apache-2.0

package dns_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/nameserver"
	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/dns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// updates is a provider that writes to name servers by RFC 2136.
type updates struct {
	servers []*nameserver.Server
	keeps   bool
	before  func(method string, r dns.Record) error // may be nil
}

func (u *updates) KeepsOthers() bool { return u.keeps }

func (u *updates) Present(ctx context.Context, r dns.Record) error {
	return u.send(ctx, "present", r, (*mdns.Msg).Insert)
}

func (u *updates) CleanUp(ctx context.Context, r dns.Record) error {
	return u.send(ctx, "clean up", r, (*mdns.Msg).Remove)
}

func (u *updates) send(ctx context.Context, method string, r dns.Record, change func(*mdns.Msg, []mdns.RR)) error {
	if u.before != nil {
		if err := u.before(method, r); err != nil {
			return err
		}
	}
	for _, s := range u.servers {
		if err := write(ctx, s, r.Zone, r.Name, r.Value, change); err != nil {
			return err
		}
	}
	return nil
}

func write(ctx context.Context, s *nameserver.Server, zone, name, value string, change func(*mdns.Msg, []mdns.RR)) error {
	m := new(mdns.Msg).SetUpdate(zone + ".")
	change(m, []mdns.RR{&mdns.TXT{
		Hdr: mdns.RR_Header{Name: name + ".", Rrtype: mdns.TypeTXT, Class: mdns.ClassINET, Ttl: 1},
		Txt: []string{value},
	}})
	m.SetTsig(s.KeyName+".", s.KeyAlgorithm+".", 300, time.Now().Unix())
	c := &mdns.Client{Net: "tcp", TsigSecret: map[string]string{s.KeyName + ".": s.KeySecret}}
	r, _, err := c.ExchangeContext(ctx, m, s.Addr())
	if err == nil && r.Rcode != mdns.RcodeSuccess {
		err = errors.New(mdns.RcodeToString[r.Rcode])
	}
	return err
}

const (
	key  = "token.thumbprint"
	name = "_acme-challenge.www.example.test"
)

func challenge(name string) solver.Challenge {
	return solver.Challenge{Type: solver.DNS01, Name: name, Token: "token", KeyAuthorization: key}
}

func resolver(s *nameserver.Server) *resolve.Resolver {
	return resolve.New([]string{s.Addr()}).WithAuthoritativePort(s.Port())
}

func texts(t *testing.T, s *nameserver.Server, name string) []string {
	t.Helper()
	got, err := resolver(s).TXTAt(t.Context(), s.Addr(), name)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	return got
}

func TestSolve(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}})
	solve := dns.New(dns.Config{Provider: &updates{servers: []*nameserver.Server{s}}, Resolver: resolver(s)})
	c := challenge("www.example.test")
	done, err := solve.Solve(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(t, s, name); !slices.Equal(got, []string{c.DNSValue()}) {
		t.Fatalf("the zone has %q", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := done(ended); err != nil {
		t.Fatal(err)
	}
	if got := texts(t, s, name); len(got) != 0 {
		t.Fatalf("left behind: %q", got)
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDelegation(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{
		Zones: []string{"example.test", "answers.test"},
		Records: []string{
			name + ". 60 CNAME via.example.test.",
			"via.example.test. 60 CNAME www.answers.test.",
			"_acme-challenge.loop.example.test. 60 CNAME _acme-challenge.loop.example.test.",
			"_acme-challenge.option.example.test. 60 CNAME --output\\061x.answers.test.",
			"_acme-challenge.wild.example.test. 60 CNAME *.answers.test.",
		},
	})
	solve := dns.New(dns.Config{Provider: &updates{servers: []*nameserver.Server{s}}, Resolver: resolver(s)})
	c := challenge("www.example.test")
	done, err := solve.Solve(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(t, s, "www.answers.test"); !slices.Equal(got, []string{c.DNSValue()}) {
		t.Errorf("the other zone has %q", got)
	}
	if err := done(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := solve.Solve(t.Context(), challenge("loop.example.test")); err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("a loop: %v", err)
	}
	for _, odd := range []string{"option.example.test", "wild.example.test"} {
		if _, err := solve.Solve(t.Context(), challenge(odd)); err == nil || !strings.Contains(err.Error(), "where no record is set") {
			t.Errorf("%s, which leads to what is no plain name: %v", odd, err)
		}
	}
}

// two starts two name servers of one zone that know nothing of each other.
func two(t *testing.T) (first, second *nameserver.Server) {
	t.Helper()
	o := nameserver.Options{Zones: []string{"example.test"}, NameServers: []string{"127.0.0.1", "127.0.0.2"}}
	first = nameserver.Start(t, o)
	o.Host, o.Port = "127.0.0.2", first.Port()
	return first, nameserver.Start(t, o)
}

func TestWaitsForAllServers(t *testing.T) {
	first, second := two(t)
	u := &updates{servers: []*nameserver.Server{first}}
	if err := write(t.Context(), second, "example.test", name, "old", (*mdns.Msg).Insert); err != nil {
		t.Fatal(err)
	}
	solve := dns.New(dns.Config{Provider: u, Resolver: resolver(first), Propagation: time.Second})
	_, err := solve.Solve(t.Context(), challenge("www.example.test"))
	var late *dns.PropagationError
	if !errors.As(err, &late) || len(late.Servers) != 1 || !strings.Contains(err.Error(), `ns2.example.test (127.0.0.2:`+second.Port()+`) answers "old"`) {
		t.Fatalf("a server without the record: %v", err)
	}
	if got := texts(t, first, name); len(got) != 0 {
		t.Fatalf("left behind after an error: %q", got)
	}

	// It ends when the second server gets the record, which is later.
	c := challenge("www.example.test")
	var wrote sync.WaitGroup
	u.before = func(method string, r dns.Record) error {
		if method == "present" {
			wrote.Go(func() {
				if err := write(context.Background(), second, r.Zone, r.Name, r.Value, (*mdns.Msg).Insert); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	}
	solve = dns.New(dns.Config{Provider: u, Resolver: resolver(first)})
	done, err := solve.Solve(t.Context(), c)
	wrote.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(t, second, name); !slices.Contains(got, c.DNSValue()) {
		t.Fatalf("it returned although ns2 answers %q", got)
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDeadServerDoesNotCount(t *testing.T) {
	first, second := two(t)
	second.Stop()
	solve := dns.New(dns.Config{Provider: &updates{servers: []*nameserver.Server{first}}, Resolver: resolver(first)})
	done, err := solve.Solve(t.Context(), challenge("www.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestNoServerReached is behind a firewall: nothing answers at the port of
// authoritative servers, and the resolver has the record.
func TestNoServerReached(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}})
	var log logged
	solve := dns.New(dns.Config{
		Provider: &updates{servers: []*nameserver.Server{s}},
		Resolver: resolve.New([]string{s.Addr()}).WithAuthoritativePort("1"),
		Logger:   slog.New(slog.NewTextHandler(&log, nil)),
	})
	done, err := solve.Solve(t.Context(), challenge("www.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "no authoritative name server could be asked") {
		t.Fatalf("it was not said: %s", log.String())
	}
}

type logged struct {
	mu sync.Mutex
	b  strings.Builder // guarded by mu
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestOneNameAtATime holds that challenges for one name wait for each other where
// the provider does not keep others' records, and do not where it does.
func TestOneNameAtATime(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}})
	for _, keeps := range []bool{false, true} {
		u := &updates{servers: []*nameserver.Server{s}, keeps: keeps}
		solve := dns.New(dns.Config{Provider: u, Resolver: resolver(s)})
		one, err := solve.Solve(t.Context(), challenge("www.example.test"))
		if err != nil {
			t.Fatal(err)
		}
		other := challenge("www.example.test")
		other.KeyAuthorization = "other.thumbprint"
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if !keeps {
			ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
		}
		two, err := solve.Solve(ctx, other)
		cancel()
		switch {
		case !keeps && (!errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "another challenge")):
			t.Fatalf("the second did not wait: %v", err)
		case keeps && err != nil:
			t.Fatal(err)
		case keeps:
			if got := texts(t, s, name); len(got) != 2 {
				t.Fatalf("the zone has %q", got)
			}
			if err := two(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := one(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !keeps {
			if two, err = solve.Solve(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			if err := two(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestProviderFails(t *testing.T) {
	s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}})
	broken := errors.New("the token is not known")
	var cleaned bool
	u := &updates{servers: []*nameserver.Server{s}}
	u.before = func(method string, _ dns.Record) error {
		if method == "present" {
			return broken
		}
		cleaned = true
		return nil
	}
	solve := dns.New(dns.Config{Provider: u, Resolver: resolver(s)})
	c := challenge("www.example.test")
	done, err := solve.Solve(t.Context(), c)
	if !errors.Is(err, broken) || done != nil || !cleaned {
		t.Fatalf("%v, cleaned up: %v", err, cleaned)
	}
	// A service that refuses what it has already.
	if err := write(t.Context(), s, "example.test", name, c.DNSValue(), (*mdns.Msg).Insert); err != nil {
		t.Fatal(err)
	}
	if done, err = solve.Solve(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := done(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRefused(t *testing.T) {
	solve := dns.New(dns.Config{Provider: &updates{}})
	for _, c := range []solver.Challenge{
		{Type: solver.HTTP01, Name: "example.test"},
		{Type: solver.DNS01, Name: "192.0.2.1"},
	} {
		if _, err := solve.Solve(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.Name) {
			t.Errorf("%v: %v", c, err)
		}
	}
}
