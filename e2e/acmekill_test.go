// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/crash"
)

// buildCrashable builds keyturn as it is, but for the points at which it kills
// itself.
func buildCrashable(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "keyturn")
	args := []string{"build", "-buildvcs=false", "-tags", "crashpoints", "-o", program}
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/keyturn")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return program
}

// A publicWeb is a manager whose certificates come from a Pebble, which looks for
// its proofs on a web server that the manager writes files for.
type publicWeb struct {
	*web
	ca     *acmetest.CA
	orders atomic.Int64 // that were begun
}

func newPublicWeb(t *testing.T) *publicWeb {
	t.Helper()
	p := &publicWeb{
		web: &web{sandbox: newSandbox(t), nats: freeAddr(t)},
		ca:  acmetest.Start(t, acmetest.Options{}),
	}
	p.data = filepath.Join(p.state, "keyturn")
	p.ca.Intercept(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/order-plz") {
				w = &counted{w, &p.orders}
			}
			next.ServeHTTP(w, r)
		})
	})
	files := p.serveFiles()
	p.serve()
	conf := filepath.Join(p.state, "conf.yaml")
	text := fmt.Sprintf("issuers:\n  pebble:\n    type: acme\n    directory: %s\n    terms_agreed: true\n    roots: |\n      %s\n"+
		"resolvers: [%q]\nsolvers:\n  files: {type: webroot, path: %q}\nzones: {.: [files]}\n",
		p.ca.Directory(), strings.ReplaceAll(strings.TrimSpace(p.ca.WebRoots()), "\n", "\n      "), p.ca.DNS.Addr(), files)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := p.command("/bin/sh", "-c", `exec "$0" conf update < "$1"`, keyturn, conf); err != nil || c.code != 0 {
		t.Fatal(err, c.err.String())
	}
	p.keyturn("group", "mk", "web")
	return p
}

// A counted answer counts if it says that something was made. What the CA refused,
// a request may be repeated for: Pebble does not find every serial number again.
type counted struct {
	http.ResponseWriter
	made *atomic.Int64
}

func (c *counted) WriteHeader(status int) {
	if status == http.StatusCreated {
		c.made.Add(1)
	}
	c.ResponseWriter.WriteHeader(status)
}

// serveFiles serves a folder where the CA looks for http-01, whatever the name, and
// returns it.
func (p *publicWeb) serveFiles() string {
	p.t.Helper()
	dir := filepath.Join(p.state, "www")
	if err := os.Mkdir(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.ca.HTTPPort)))
	if err != nil {
		p.t.Fatal(err)
	}
	s := &http.Server{Handler: http.FileServer(http.Dir(dir))}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	p.t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
	return dir
}

// TestACMEKill kills the manager at every point between the claim on a generation
// and its publication, while it renews a certificate of an ACME CA. The manager
// that is started next goes on with the same order: one is begun and one finalised
// for the generation, which is published.
func TestACMEKill(t *testing.T) {
	t.Parallel()
	crashable := buildCrashable(t)
	p := newPublicWeb(t)
	for i, point := range crash.Renewal() {
		name := fmt.Sprintf("k%d.kill.example", i)
		id, err := p.mk(name)
		if err != nil {
			t.Fatal(err)
		}
		begun := p.orders.Load()

		p.manager.stop(t, sigterm)
		doomed := p.serveAs(crashable, "KEYTURN_CRASH="+point)
		p.mark(id)
		if code, err := doomed.wait(); err != nil || code != -1 {
			t.Fatalf("%s: exit code %d, %v: it is not killed there\n%s", point, code, err, tail(doomed.err.String()))
		}
		p.serve()

		eventually(t, "generation 2 of "+name, func() error { return p.published(id, 2) })
		if n := p.ca.Finalized(name); n != 2 {
			t.Errorf("%s: %d orders were finalised for two generations", point, n)
		}
		if n := p.orders.Load() - begun; n != 1 {
			t.Errorf("%s: %d orders were begun for one generation", point, n)
		}
		if c := p.cat(id); len(c.History) != 2 {
			t.Errorf("%s: %d generations in the history", point, len(c.History))
		}
	}
}

// serveAs starts another build of the manager, with one more variable.
func (p *publicWeb) serveAs(program, variable string) *process {
	p.t.Helper()
	env := p.env
	p.env = append(env[:len(env):len(env)], variable)
	defer func() { p.env = env }()
	return p.serveBy(program, p.sandbox, "--nats", p.nats)
}

// mark makes a certificate due.
func (p *publicWeb) mark(id string) {
	p.t.Helper()
	m, conn := (&managers{sandbox: p.sandbox}).library(p.data)
	defer conn.Close()
	if err := m.Mark(p.t.Context(), id, event.ReasonRekey); err != nil {
		p.t.Fatal(err)
	}
}

// published returns an error unless a generation stands on the bus for managers,
// and the same one for replicas.
func (p *publicWeb) published(id string, generation uint64) error {
	m, conn := (&managers{sandbox: p.sandbox}).library(p.data)
	defer conn.Close()
	c, err := m.Get(p.t.Context(), id)
	if err != nil {
		return err
	}
	entry, err := conn.Get(p.t.Context(), event.CertificateKey(c.Spec.Group, id))
	switch {
	case err != nil:
		return err
	case c.Generation != generation || c.Order != nil || c.Claim != nil:
		return fmt.Errorf("it is at generation %d, claim %+v, failure %+v", c.Generation, c.Claim, c.Failure)
	case !bytes.Equal(entry.Data, c.Current):
		return fmt.Errorf("generation %d does not stand there for replicas", generation)
	}
	return nil
}
