// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
)

// A site is an instance with a CA that speaks ACME, and a replica that serves the
// names that the CA is asked for.
type site struct {
	t        *testing.T
	dir      string
	instance *instance
	ca       *acmetest.CA
}

// newSite starts them. The instance's manager does nothing: commands do.
func newSite(t *testing.T, o acmetest.Options) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "data"), ca: acmetest.Start(t, o)}
	logger := slog.New(slog.DiscardHandler)
	in := &instance{config: serveConfig{Local: config.Local{Data: s.dir, NATS: "127.0.0.1:0"}}, logger: logger, out: io.Discard}
	in.status = status.New(logger)
	t.Cleanup(func() {
		if err := in.stop(); err != nil {
			t.Error(err)
		}
	})
	for _, step := range []func(context.Context) error{
		func(context.Context) error { return in.open(datadir.Production) }, in.startBus, in.makeManager,
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.instance = in
	return s
}

// serve joins a replica to the default group, which answers the CA over HTTP.
func (s *site) serve() {
	s.t.Helper()
	ctx, logger := s.t.Context(), slog.New(slog.DiscardHandler)
	token, err := s.instance.manager.NewToken(ctx, manager.DefaultGroup, time.Minute)
	if err != nil {
		s.t.Fatal(err)
	}
	dir := filepath.Join(s.t.TempDir(), "replica")
	let, stop := context.WithCancel(ctx)
	var admits sync.WaitGroup
	admits.Go(func() { s.instance.manager.Run(let) })
	defer admits.Wait()
	defer stop()
	if _, err := replica.Join(ctx, replica.JoinConfig{Token: token, Dir: dir, Name: "web1", Logger: logger}); err != nil {
		s.t.Fatal(err)
	}
	r, err := replica.Open(ctx, replica.Config{Dir: dir, Logger: logger})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = r.Close() })
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.ca.HTTPPort))
	if err != nil {
		s.t.Fatal(err)
	}
	web := &http.Server{Handler: r.HTTPHandler(http.NotFoundHandler()), ReadHeaderTimeout: time.Second}
	go func() { _ = web.Serve(l) }() // Close ends it
	s.t.Cleanup(func() { _ = web.Close() })
}

// configure gives the instance a configuration whose issuer "public" is the CA.
func (s *site) configure(more string) {
	s.t.Helper()
	text := fmt.Sprintf("default_issuer: public\nresolvers: [%q]\nissuers:\n  internal: {type: local}\n  public:\n    type: acme\n    directory: %s\n    terms_agreed: true\n    contact: ops@example.com\n    limits: {orders: 100/1h, domain: 20/1d}\n    roots: |\n      %s\n%s",
		s.ca.DNS.Addr(), s.ca.Directory(), strings.ReplaceAll(strings.TrimSpace(s.ca.WebRoots()), "\n", "\n      "), more)
	if code, _, errOut := s.input(text, "conf", "update"); code != 0 {
		s.t.Fatalf("conf update exits with %d: %s", code, errOut)
	}
}

// input runs a command as a process of its own would.
func (s *site) input(in string, args ...string) (code int, out, errOut string) {
	var stdout, stderr bytes.Buffer
	code = run(s.t.Context(), append(args, "--data", s.dir, "--timeout", "1m"), strings.NewReader(in), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// run runs a command that has to succeed.
func (s *site) run(args ...string) string {
	s.t.Helper()
	code, out, errOut := s.input("", args...)
	if code != 0 {
		s.t.Fatalf("keyturn %s exits with %d: %s", strings.Join(args, " "), code, errOut)
	}
	return strings.TrimSpace(out)
}

// fail runs a command that has to fail.
func (s *site) fail(args ...string) string {
	s.t.Helper()
	code, out, errOut := s.input("", args...)
	if code != exitFailed {
		s.t.Fatalf("keyturn %s exits with %d: %s%s", strings.Join(args, " "), code, out, errOut)
	}
	return errOut
}

func (s *site) cat(id string) (d detail) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.run("cert", "cat", id)), &d); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *site) matches(text string, patterns ...string) {
	s.t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(text) {
			s.t.Errorf("%s\ndoes not match %s", text, p)
		}
	}
}

// TestACME goes the way of a public certificate by commands, each a manager of its
// own: the group's replica answers the CA.
func TestACME(t *testing.T) {
	s := newSite(t, acmetest.Options{NonceReject: 20})
	s.serve()
	s.configure("")
	s.matches(s.run("issuer", "ls"), `^internal +local +- +- +never used$`, `^public +acme +https://\S+ +- +default, never used$`)
	id := s.run("cert", "mk", "www.example.com", "--subdomain", "--challenge", "http-01", "--issuer", "public,internal")
	s.matches(s.run("issuer", "ls"), `^public +acme +https://\S+ +https://\S+ +default$`)

	d := s.cat(id)
	if d.Issuer != "public" || d.Challenge != "http-01" || len(d.Fallbacks) != 1 || d.Certificate == nil {
		t.Fatalf("%+v", d)
	}
	if h := d.History[0]; h.Issuer != "public" || !strings.HasPrefix(h.Order, "https://") || d.Order != nil || d.Failure != nil {
		t.Errorf("%+v", d)
	}
	if n := s.ca.Finalized("www.example.com"); n != 1 {
		t.Errorf("%d orders", n)
	}
	s.matches(s.run("limits"), `^public +orders +- +100/1h +\d+ +20\S+Z$`, `^public +domain +example\.com +20/1d +\d+ +20\S+Z$`)
	s.matches(s.run("cert", "renewable", "--all"), `^`+id+` +20\S+ +no +.+ +www\.example\.com$`)

	s.run("issuer", "rollover", "public")
	s.matches(s.run("cert", "renew", id), `generation 2`)
	s.matches(s.run("cert", "history", id), `^1 +.* new +public `, `^2 +.* rekey +public `)

	s.matches(s.run("cert", "renew", "--all", "--issuer", "public"), `^1 of 1 certificate of issuer public made anew$`)
	s.matches(s.run("cert", "revoke", id, "--reason", "superseded", "--generation", "1"), `^generation 1 of \S+ is revoked: superseded$`)
	s.matches(s.run("cert", "history", id), `^1 .* revoked 20\S+$`)
	if d := s.cat(id); d.Mark != nil || d.Generation != 3 {
		t.Errorf("%+v", d)
	}
	s.matches(s.run("cert", "revoke", id, "--reason", "key-compromise", "--by-key"), `^generation 3 of \S+ is revoked: key-compromise; it is due at once$`)
	s.matches(s.run("cert", "renewable"), `^`+id+` +20\S+ +yes +it is marked: compromised +www`)
	s.matches(s.run("renew", "--due"), `renewed: generation 4`)
	s.matches(s.run("cert", "rm", id, "--revoke"), `is revoked \(cessation-of-operation\) and removed$`)
	if out := s.run("cert", "ls"); strings.Contains(out, id) {
		t.Error(out)
	}
}

// TestACMERefused: what a CA says is shown in its own words, name by name.
func TestACMERefused(t *testing.T) {
	s := newSite(t, acmetest.Options{Blocked: []string{"blocked.example.com"}})
	s.serve()
	s.configure("")
	out := s.fail("cert", "mk", "--names", "good.example.com,blocked.example.com", "--challenge", "http-01")
	s.matches(out, `blocked\.example\.com`, `rejectedIdentifier`)
	s.matches(s.run("cert", "ls"), `\AId[^\n]*\z`)

	// A certificate that is there, and cannot be renewed any more.
	id := s.run("cert", "mk", "a.example.com", "--subdomain")
	s.ca.DNS.CAA("a.example.com", "issue", "other.example")
	s.matches(s.fail("cert", "renew", id), `CAA`, `other\.example`)
	d := s.cat(id)
	if d.Failure == nil || d.Failure.Issuer != "public" || d.Failure.Attempts != 1 || !strings.Contains(d.Failure.Message, "other.example") {
		t.Errorf("%+v", d.Failure)
	}
	s.matches(s.run("cert", "history", id), `^attempt 1 failed at public, 20\S+; the next is 20\S+$`, `^  .*other\.example`)
	s.matches(s.run("cert", "renewable", "--all"), `^`+id+` +20\S+ +no +attempt 1 failed at issuer "public", and the back-off ends then `)
}

// TestACMEUnfinished: the CA signs, and its answer is lost. The same command goes on
// with the order, under the same id.
func TestACMEUnfinished(t *testing.T) {
	s := newSite(t, acmetest.Options{})
	s.serve()
	s.configure("")
	var lost atomic.Bool
	lost.Store(true)
	s.ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if lost.Load() && strings.HasPrefix(r.URL.Path, "/finalize-order/") {
				next.ServeHTTP(httptest.NewRecorder(), r)
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	mk := []string{"cert", "mk", "www.example.com", "--subdomain", "--challenge", "http-01"}
	out := s.fail(mk...)
	s.matches(out, `Bad Gateway`, `the order stays, and is gone on with by whoever runs, or by asking for the same certificate again`)
	id := regexp.MustCompile("`keyturn cert rm ([^`]+)`").FindStringSubmatch(out)[1]
	s.matches(s.run("cert", "ls"), `^`+id+` +- +0 +public +www\.example\.com$`)
	s.matches(s.run("cert", "history", id), `^attempt 1 failed at public, `, `^  .*Bad Gateway`)
	s.matches(s.run("cert", "renewable", "--all"), `^`+id+` +20\S+ +no +attempt 1 failed at issuer "public"`)
	s.matches(s.fail("cert", "revoke", id, "--reason", "superseded"), `no certificate`)
	if d := s.cat(id); d.Order == nil || d.Order.Status == "pending" || d.Certificate != nil {
		t.Errorf("%+v", d)
	}
	s.matches(s.fail(append(mk, "--key", "ecdsa-p384")...), `as `+id+", which has no certificate yet: go on with it by `keyturn cert renew "+id+"`")
	lost.Store(false)
	if again := s.run(mk...); again != id || s.ca.Finalized("www.example.com") != 1 {
		t.Errorf("%s was begun, and %s is made: %d orders", id, again, s.ca.Finalized("www.example.com"))
	}

	// What is given up is gone, and the names are free.
	lost.Store(true)
	mk[2] = "api.example.com"
	out = s.fail(mk...)
	given := regexp.MustCompile("`keyturn cert rm ([^`]+)`").FindStringSubmatch(out)[1]
	s.run("cert", "rm", given)
	s.matches(s.run("cert", "ls"), `\AId.*\n`+id+`[^\n]*\z`)
	lost.Store(false)
	if other := s.run(mk...); other == given {
		t.Errorf("%s was given up, and is made", given)
	}
}

// TestACMEStandAlone: a solver of the shared configuration owns the port.
func TestACMEStandAlone(t *testing.T) {
	s := newSite(t, acmetest.Options{})
	s.configure(fmt.Sprintf("solvers:\n  port: {type: tls-alpn-01, listen: '127.0.0.1:%d'}\nzones: {.: port}\n", s.ca.TLSPort))
	id := s.run("cert", "mk", "--names", "a.example.com,b.example.com", "--challenge", "tls-alpn-01")
	if d := s.cat(id); d.Certificate == nil || len(d.Names) != 2 {
		t.Errorf("%+v", d)
	}
	// Nobody answers http-01: there is no replica.
	s.matches(s.fail("cert", "mk", "c.example.com", "--subdomain", "--challenge", "http-01"), `group "default"`)
}
