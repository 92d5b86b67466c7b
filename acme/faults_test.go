// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/acme"
	"github.com/keyturn/keyturn/internal/acmetest"
	issueracme "github.com/keyturn/keyturn/issuer/acme"
	"github.com/keyturn/keyturn/solver"
)

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// countRequests counts what goes to paths with a prefix.
func countRequests(ca *acmetest.CA, prefix string) *atomic.Int64 {
	n := new(atomic.Int64)
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, prefix) {
				n.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	})
	return n
}

// TestCrashLoop begins again and again where the CA cannot reach the process.
func TestCrashLoop(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	orders := countRequests(ca, "/order-plz")
	c := configFor(t, ca, name)
	elsewhere := "127.0.0.1:0" // the CA looks at another port
	for range 3 {
		s, err := c.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", elsewhere)
		if err != nil {
			t.Fatal(err)
		}
		serve(t, s.Listener(l))
		eventually(t, "a failure", func() bool { return s.Status().Failures > 0 })
		st := s.Status()
		if st.Failures != 1 || st.Due.Sub(st.FailedAt) != time.Minute || !strings.Contains(st.Failure, name) {
			t.Errorf("%+v", st)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Wait(ctx); err == nil || !strings.Contains(err.Error(), st.Failure) {
			t.Errorf("waiting ended with %v, without the reason", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := s.Wait(t.Context()); err == nil {
			t.Error("waiting for a closed server succeeds")
		}
	}
	if n := orders.Load(); n != 1 {
		t.Errorf("%d orders in three starts, want 1", n)
	}

	s := open(t, c, port(ca)) // where the CA looks
	_, err := dial(t, port(ca), name, ca.IssuerRoots())
	if err == nil {
		t.Error("there is a certificate although it is not tried again yet")
	}
	if err := s.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustDial(t, port(ca), name, ca)
	if st := s.Status(); st.Failures != 0 || st.Failure != "" || st.Order != "" {
		t.Errorf("after a success: %+v", st)
	}
}

// TestResumes ends the process while the CA signs, and after the certificate was kept
// but before the state was.
func TestResumes(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	c := configFor(t, ca, name)
	orders := countRequests(ca, "/order-plz")
	var hang atomic.Bool
	hang.Store(true)
	hangs := make(chan struct{}, 1)
	ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if hang.Load() && strings.HasPrefix(r.URL.Path, "/finalize-order/") {
				w = discard{w.Header().Clone()} // signed, but nobody hears of it
				next.ServeHTTP(w, r)
				select {
				case hangs <- struct{}{}:
				default:
				}
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	s := open(t, c, port(ca))
	<-hangs
	if s.Status().Order == "" {
		t.Error("the order was not kept before it was finalised")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(c.Dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	hang.Store(false)

	s = open(t, c, "")
	wait(t, s)
	if orders.Load() != 1 || ca.Finalized() != 1 {
		t.Errorf("%d orders, %d finalised; want one that is resumed", orders.Load(), ca.Finalized())
	}
	until := s.Status().NotAfter
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(c.Dir, name+".json"), before, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, c, "")
	wait(t, s)
	if st := s.Status(); !st.NotAfter.Equal(until) || st.Order != "" || !st.Due.After(time.Now()) {
		t.Errorf("the certificate that was kept is not taken for the order's: %+v", st)
	}
}

// discard takes an answer that nobody gets.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// TestFilesOfNoUse has what is not what was written.
func TestFilesOfNoUse(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{NoValidation: true})
	for file, text := range map[string]string{
		name + ".json": "{",
	} {
		c := configFor(t, ca, name)
		put(t, c.Dir, file, text, 0o600)
		if _, err := c.Open(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("a broken %s: %v", file, err)
		}
		put(t, c.Dir, file, "{}", 0o644)
		if _, err := c.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("a %s that others can read: %v", file, err)
		}
	}
	c := configFor(t, ca, name)
	put(t, c.Dir, name+".pem", "no certificate", 0o600)
	put(t, c.Dir, "."+name+".pem.0123456789abcdef.tmp", "half a certificate", 0o600)
	wait(t, open(t, c, ""))
	text, err := os.ReadFile(filepath.Join(c.Dir, name+".pem"))
	if err != nil || !bytes.HasPrefix(text, []byte("-----BEGIN PRIVATE KEY")) {
		t.Errorf("a broken certificate is not replaced: %q, %v", text, err)
	}
	if left, err := filepath.Glob(filepath.Join(c.Dir, ".*.tmp")); err != nil || len(left) > 0 {
		t.Errorf("%q, %v is left of a write that was cut short", left, err)
	}
	if err := os.Chmod(c.Dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a directory that others can write to: %v", err)
	}
}

func put(t *testing.T, dir, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, file)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// TestTwoProcesses has two on one directory: one renews, and the other takes over.
func TestTwoProcesses(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	c := configFor(t, ca, name)
	one := open(t, c, port(ca))
	two := open(t, c, "")
	wait(t, one)
	wait(t, two)
	if !one.Status().NotAfter.Equal(two.Status().NotAfter) || ca.Finalized() != 1 {
		t.Errorf("two processes have obtained %d certificates", ca.Finalized())
	}
	if one.Status().Elsewhere || !two.Status().Elsewhere {
		t.Error("the second one renews")
	}
	if err := two.Renew(t.Context()); err == nil {
		t.Error("both renew")
	}
	if err := one.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	newer := one.Status().NotAfter
	eventually(t, "the second process serves what the first has renewed", func() bool { return two.Status().NotAfter.Equal(newer) })
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second process takes over", func() bool { return !two.Status().Elsewhere })
	if ca.Finalized() != 2 {
		t.Errorf("%d certificates, want 2", ca.Finalized())
	}
}

// TestNamesChange keeps the certificate in use that does not have all names.
func TestNamesChange(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	c := configFor(t, ca, name)
	s := open(t, c, port(ca))
	wait(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ca.DNS.A(other, "127.0.0.2") // nobody answers the CA there
	c.Names = []string{name, other}
	s, l := open(t, c, ""), loopback(t)
	serve(t, s.Listener(l))
	eventually(t, "a failure", func() bool { return s.Status().Failures > 0 })
	mustDial(t, l.Addr().String(), name, ca)
	if _, err := dial(t, l.Addr().String(), other, ca.IssuerRoots()); err == nil {
		t.Error("the new name has a certificate")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Wait(ctx); err == nil {
		t.Error("there is a certificate for all names")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	c.Names = []string{name} // back, and what failed does not matter any more
	s = open(t, c, "")
	wait(t, s)
	if st := s.Status(); time.Until(st.Due) < 24*time.Hour || ca.Finalized() != 1 {
		t.Errorf("the certificate is not good enough any more: %+v", st)
	}
}

func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestClosedDirectory says what is wrong before anything is served.
func TestConfigErrors(t *testing.T) {
	good := acme.Config{Names: []string{name}, TermsAgreed: true, Dir: t.TempDir()}
	for want, change := range map[string]func(*acme.Config){
		"no names":            func(c *acme.Config) { c.Names = nil },
		"bad name":            func(c *acme.Config) { c.Names = []string{"https://example.com"} },
		"TermsAgreed":         func(c *acme.Config) { c.TermsAgreed = false },
		"no https URL":        func(c *acme.Config) { c.Directory = "http://127.0.0.1/dir" },
		"letsencrypt-staging": func(c *acme.Config) { c.Directory = "letsencrypted" },
		"unknown key type":    func(c *acme.Config) { c.Key = "dsa" },
		"RenewBefore":         func(c *acme.Config) { c.RenewBefore = -1 },
		"no challenge":        func(c *acme.Config) { c.Challenge = "dns" },
		"solver/dns":          func(c *acme.Config) { c.Challenge = "dns-01" },
		"wildcard":            func(c *acme.Config) { c.Names = []string{"*.example.com"} },
	} {
		c := good
		change(&c)
		if s, err := c.Open(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
			if err == nil {
				_ = s.Close() // it is not what was to be tested
			}
		}
	}
}

// TestAccount has one for all names of a directory, and tells what to do when the CA has
// ended it.
func TestAccount(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{NoValidation: true})
	accounts := countRequests(ca, "/sign-me-up")
	c := configFor(t, ca, name)
	c.Contact = []string{"someone@example.com"}
	wait(t, open(t, c, ""))
	made := accounts.Load()
	c.Names = []string{other}
	s := open(t, c, "")
	wait(t, s)
	files, err := filepath.Glob(filepath.Join(c.Dir, "account-*"))
	if err != nil || len(files) != 1 || accounts.Load() != made+1 { // it is looked for once
		t.Errorf("%d accounts are kept, %v, and asked for %d times", len(files), err, accounts.Load())
	}

	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	account, err := issueracme.ParseAccount(text)
	if err != nil {
		t.Fatal(err)
	}
	way, err := issueracme.New(issueracme.Config{
		Name: "test", Directory: c.Directory, Roots: c.Roots, TermsAgreed: true, Account: account,
		Solve: func(context.Context, solver.Challenge) (func(context.Context) error, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer way.Close()
	if err := way.Deactivate(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Names = []string{"third.example.com"}
	s = open(t, c, "")
	eventually(t, "a failure", func() bool { return s.Status().Failures > 0 })
	if f := s.Status().Failure; !strings.Contains(f, filepath.Base(files[0])) {
		t.Errorf("the failure %q does not say which account", f)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, c, "")
	if err := s.Renew(t.Context()); err != nil {
		t.Errorf("without the account: %v", err)
	}
}
