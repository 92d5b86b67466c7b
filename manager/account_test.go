// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
)

// acmeConfig is a shared configuration with an issuer "pebble", and more settings
// of that, each a line.
func acmeConfig(ca *acmetest.CA, more ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "default_issuer: pebble\nresolvers: [%q]\nsolvers:\n  test:\n    type: exec\n    program: /bin/false\nzones:\n  .: [test]\n", ca.DNS.Addr())
	fmt.Fprintf(&b, "issuers:\n  internal:\n    type: local\n  pebble:\n    type: acme\n    directory: %s\n    terms_agreed: true\n    challenge: dns-01\n", ca.Directory())
	b.WriteString("    roots: |\n" + indented(ca.WebRoots()))
	for _, line := range more {
		b.WriteString("    " + line + "\n")
	}
	return b.String()
}

func indented(text string) string {
	return "      " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n      ") + "\n"
}

// newACMEFleet is one whose default issuer is a Pebble that validates by dns-01.
func newACMEFleet(t testing.TB, o acmetest.Options, more ...string) (*fleet, *Manager, *acmetest.CA) {
	t.Helper()
	f, _ := newFleet(t)
	ca := acmetest.Start(t, o)
	f.solver = ca.DNS
	m := f.manager(t, "")
	f.configure(t, m, acmeConfig(ca, more...))
	return f, m, ca
}

// configure replaces the shared configuration.
func (f *fleet) configure(t testing.TB, m *Manager, text string) {
	t.Helper()
	_, at, err := m.ConfigText(t.Context())
	if err == nil {
		_, err = m.UpdateConfig(t.Context(), []byte(text), at)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// account is what an issuer keeps.
func account(t testing.TB, m *Manager) *acme.Account {
	t.Helper()
	s, _, err := get[*event.IssuerState](t.Context(), m, event.IssuerKey("pebble"))
	if err != nil {
		t.Fatal(err)
	}
	_, a, err := m.accountOf(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// requests counts what a CA is asked, by the path's end.
type requests struct {
	mu sync.Mutex
	n  map[string]int // guarded by mu
}

func count(ca *acmetest.CA) *requests {
	r := &requests{n: make(map[string]int)}
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			r.mu.Lock()
			r.n[q.URL.Path]++
			r.mu.Unlock()
			next.ServeHTTP(w, q)
		})
	})
	return r
}

func (r *requests) of(path string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p, times := range r.n {
		if strings.Contains(p, path) {
			n += times
		}
	}
	return n
}

func TestACertificateOfAPublicCA(t *testing.T) {
	_, m, ca := newACMEFleet(t, acmetest.Options{})
	c := make1(t, m, "a.example", "*.a.example")
	leaf, err := c.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	intermediates := x509.NewCertPool()
	for _, der := range c.Certificate.Chain[1:] {
		i, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		intermediates.AddCert(i)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: "b.a.example", Roots: ca.IssuerRoots(), Intermediates: intermediates}); err != nil {
		t.Error(err)
	}
	if r := c.History[0]; r.Issuer != "pebble" || !strings.HasPrefix(r.Order, "https://") || c.Order != nil {
		t.Errorf("its record: %+v", r)
	}
	if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err != nil {
		t.Fatal(err)
	}
	if n := ca.Finalized("a.example", "*.a.example"); n != 2 {
		t.Errorf("%d finalised orders for two generations", n)
	}
	list, err := m.Issuers(t.Context())
	if err != nil || list[1].Name != "pebble" || list[1].Account != account(t, m).URL || list[1].Account == "" || list[1].Directory != ca.Directory() || !list[1].TermsAgreed || !list[1].Default {
		t.Errorf("%+v %v", list, err)
	}
	if _, err := m.Roots(t.Context(), "pebble"); err == nil {
		t.Error("a public CA is its own root")
	}
}

// TestManagersShareAnAccount begins with five managers at once.
func TestManagersShareAnAccount(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	asked := count(ca)
	var all sync.WaitGroup
	for i := range 5 {
		other := f.manager(t, "")
		for n := range 3 {
			all.Go(func() {
				if _, err := other.Make(t.Context(), Request{Names: []string{fmt.Sprintf("a%d-%d.example", i, n)}}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if account(t, m).URL == "" {
		t.Error("the account's address is not written down")
	}
	// Each manager may have asked for the account by its key, and Pebble refuses nonces.
	if n := asked.of("/sign-me-up"); n < 1 || n > 5*4 {
		t.Errorf("asked for an account %d times", n)
	}
	list, err := m.List(t.Context())
	if err != nil || len(list) != 15 {
		t.Fatal(len(list), err)
	}
	for _, c := range list {
		if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); err != nil { // by one manager: it is its account, too
			t.Error(err)
		}
	}
}

// TestAnAccountIsWrittenDownFirst: whoever dies after the CA has made the account
// leaves it to the next, not an account that nobody can use.
func TestAnAccountIsWrittenDownFirst(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	var seen atomic.Int64
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if !strings.HasSuffix(q.URL.Path, "/sign-me-up") || seen.Add(1) > 1 {
				next.ServeHTTP(w, q)
				return
			}
			if account(t, m).Key == nil {
				t.Error("the CA is told of a key that is not on the bus")
			}
			next.ServeHTTP(discard{make(http.Header)}, q) // made, and its answer is lost
			panic(http.ErrAbortHandler)
		})
	})
	c := make1(t, f.manager(t, ""), "a.example")
	if a := account(t, m); a.URL == "" {
		t.Error("no address is written down")
	}
	if seen.Load() < 2 || c.Generation != 1 {
		t.Errorf("asked %d times", seen.Load())
	}
}

// discard is a client that has gone.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

func TestAnAccountThatIsBroughtAlong(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{})
	make1(t, m, "a.example")
	brought := account(t, m)

	// Another fleet goes on with it.
	other, _ := newFleet(t)
	other.solver = ca.DNS
	m = other.manager(t, "")
	key := "account_key: |\n  " + strings.ReplaceAll(indented(keyPEM(t, brought.Key.(*ecdsa.PrivateKey))), "\n", "\n  ")
	other.configure(t, m, acmeConfig(ca, strings.TrimRight(key, " \n")))
	make1(t, m, "b.example")
	if a := account(t, m); a.URL != brought.URL {
		t.Errorf("the account is %s, not %s", a.URL, brought.URL)
	}
	if err := m.RolloverAccount(t.Context(), "pebble"); err != nil {
		t.Fatal(err)
	}
	make1(t, m, "c.example") // its settings have the former key, and fit
	other.configure(t, m, acmeConfig(ca, strings.TrimRight(key, " \n"), "profile: default"))

	another, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := "account_key: |\n  " + strings.ReplaceAll(indented(keyPEM(t, another)), "\n", "\n  ")
	for what, text := range map[string]string{
		"another account": acmeConfig(ca, strings.TrimRight(foreign, " \n")),
		"another CA":      strings.Replace(acmeConfig(ca), ca.Directory(), "letsencrypt", 1),
		"another type":    "default_issuer: internal\n" + sharedConfig + "  pebble:\n    type: local\n",
	} {
		for _, m := range []*Manager{m, f.manager(t, "")} {
			_, at, err := m.ConfigText(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := m.UpdateConfig(t.Context(), []byte(text), at); err == nil || !strings.Contains(err.Error(), "needs a new name") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

func keyPEM(t testing.TB, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestContactIsKeptUpToDate(t *testing.T) {
	f, m, ca := newACMEFleet(t, acmetest.Options{}, "contact: [one@example.com]")
	make1(t, m, "a.example")
	url := account(t, m).URL
	asked := count(ca)
	f.configure(t, m, acmeConfig(ca, "contact: [two@example.com]"))
	make1(t, m, "b.example")
	make1(t, f.manager(t, ""), "c.example") // it is written down that the CA knows
	if n := asked.of(strings.TrimPrefix(url, strings.TrimSuffix(ca.Directory(), "/dir"))); n != 1 {
		t.Errorf("the account was changed %d times", n)
	}
	if a := account(t, m); a.URL != url {
		t.Errorf("the account is %s, not %s", a.URL, url)
	}
}

// TestRollover changes the account's key, with a death at each step.
func TestRollover(t *testing.T) {
	for what, cut := range map[string]func(*testing.T, *Manager, *acme.CA){
		"nothing":      nil,
		"written down": func(*testing.T, *Manager, *acme.CA) {},
		"done at the CA": func(t *testing.T, m *Manager, ca *acme.CA) {
			if err := ca.Rollover(t.Context(), account(t, m).Next); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			f, m, _ := newACMEFleet(t, acmetest.Options{})
			make1(t, m, "a.example")
			before := account(t, m)
			if cut == nil {
				if err := m.RolloverAccount(t.Context(), "pebble"); err != nil {
					t.Fatal(err)
				}
			} else {
				i, err := m.issuer(t.Context(), "pebble")
				if err == nil {
					err = m.beginRollover(t.Context(), "pebble")
				}
				if err != nil {
					t.Fatal(err)
				}
				cut(t, m, i.(*acme.CA))
			}
			make1(t, f.manager(t, ""), "b.example")
			after := account(t, m)
			if after.URL != before.URL || after.Next != nil || after.Key.(*ecdsa.PrivateKey).Equal(before.Key) {
				t.Errorf("the account is %s, with a next key: %v, with the same key: %v", after.URL, after.Next != nil, after.Key.(*ecdsa.PrivateKey).Equal(before.Key))
			}
			make1(t, m, "c.example") // who knew the former key
		})
	}
}

func TestRolloverOfWhatHasNoAccount(t *testing.T) {
	_, m := newFleet(t)
	for _, name := range []string{"internal", "nonesuch"} {
		var invalid *InvalidError
		if err := m.RolloverAccount(t.Context(), name); !errors.As(err, &invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestADeactivatedAccount is one that its owner, or the CA, has ended: no order is
// placed, and the failure says what to do.
func TestADeactivatedAccount(t *testing.T) {
	f, m, _ := newACMEFleet(t, acmetest.Options{})
	c := make1(t, m, "a.example")
	i, err := m.issuer(t.Context(), "pebble")
	if err == nil {
		err = i.(*acme.CA).Deactivate(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Manager{m, f.manager(t, "")} {
		if _, err := m.Renew(t.Context(), c.ID, event.ReasonRenewal); !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), "new name") {
			t.Errorf("%v", err)
		}
	}
	if now := at(t, m, c.ID); now.Failure == nil || now.Failure.Attempts != 2 || now.Order != nil || now.Failure.Problem == nil {
		t.Errorf("%+v", now.Failure)
	}
}
