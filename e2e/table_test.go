// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/dynamolocal"
)

// A tableFleet is a user whose bus is a table of DynamoDB.
type tableFleet struct {
	*sandbox
	t      *testing.T
	server *dynamolocal.Server
}

// busTable is the table, and the bus.
const (
	busTable   = "keyturn-e2e"
	tableURL   = "dynamodb://" + busTable
	longIssuer = "issuers:\n  internal:\n    type: local\n    lifetime: 30d\n"
)

// newTableFleet starts an emulator, and makes the table.
func newTableFleet(t *testing.T) *tableFleet {
	t.Helper()
	f := &tableFleet{sandbox: newSandbox(t), t: t, server: dynamolocal.Start(t)}
	for _, v := range dynamolocal.Env() {
		f.env = append(f.env, v[0]+"="+v[1])
	}
	f.env = append(f.env, "AWS_REGION="+dynamolocal.Region, "AWS_ENDPOINT_URL_DYNAMODB="+f.server.Endpoint)
	for _, want := range []string{"is made", "was there already"} {
		if out := f.keyturn("bus", "init", "dynamodb", "--table", busTable); !strings.Contains(out, want) {
			t.Fatalf("bus init says %q, want that the table %s", out, want)
		}
	}
	return f
}

// dir is a directory of the user's.
func (f *tableFleet) dir(name string) string { return filepath.Join(f.state, name) }

// newManager makes the first manager of a tenant, and an issuer.
func (f *tableFleet) newManager(dir, tenant string) {
	f.t.Helper()
	f.keyturn("manager", "init", "--bus", tableURL, "--dir", dir, "--tenant", tenant)
	file := filepath.Join(f.t.TempDir(), "shared.yaml")
	if err := os.WriteFile(file, []byte(longIssuer), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.shell(keyturn+` conf update --data "$1" <"$2"`, dir, file)
}

// shell runs a line of a shell, which has to succeed.
func (f *tableFleet) shell(line string, args ...string) {
	f.t.Helper()
	p, err := f.command("/bin/sh", append([]string{"-c", line, "sh"}, args...)...)
	if err != nil || p.code != 0 {
		f.t.Fatalf("%s: exit code %d, %v\n%s", p, p.code, err, tail(p.err.String()))
	}
}

// run runs a manager.
func (f *tableFleet) run(dir string, flags ...string) *process {
	f.t.Helper()
	p := f.start(keyturn, append([]string{"serve", "--data", dir, "--http", "127.0.0.1:0"}, flags...)...)
	eventually(f.t, "the manager's start", func() error {
		if p.ended() {
			f.t.Fatal(&exitError{p})
		}
		if !strings.Contains(p.err.String(), "keyturn serves") {
			return fmt.Errorf("it does not say that it serves:\n%s", tail(p.err.String()))
		}
		return nil
	})
	return p
}

// A tableHost is a server of a joined host.
type tableHost struct {
	*process
	f         *tableFleet
	dir, addr string
}

// join lets a host in, and starts its server.
func (f *tableFleet) join(manager, name string) *tableHost {
	f.t.Helper()
	h := &tableHost{f: f, dir: f.dir(name), addr: freeAddr(f.t)}
	token := strings.TrimSpace(f.keyturn("replica", "token", "web", "--data", manager))
	f.keyturn("replica", "join", token, "--dir", h.dir, "--name", name)
	h.serve()
	return h
}

func (h *tableHost) serve() {
	h.f.t.Helper()
	h.process = h.f.start(exampleServer, "--dir", h.dir, "--listen", h.addr)
	eventually(h.f.t, "the server's start", func() error {
		if h.ended() {
			h.f.t.Fatal(&exitError{h.process})
		}
		conn, err := net.Dial("tcp", h.addr)
		if err != nil {
			return fmt.Errorf("%s: it does not serve: %w", h, err)
		}
		return conn.Close()
	})
}

// issued returns a certificate, as a manager knows it.
func (f *tableFleet) issued(manager, id string) (c certificate) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(f.keyturn("cert", "cat", id, "--data", manager)), &c); err != nil {
		f.t.Fatal(err)
	}
	return c
}

// visitor returns a client for a certificate that trusts its issuer alone.
func (h *tableHost) visitor(c certificate) *client {
	h.f.t.Helper()
	chain, err := parseChain(c.Certificate.ChainPEM)
	if err != nil || len(chain) < 2 {
		h.f.t.Fatalf("the chain of %s has %d certificates: %v", c.ID, len(chain), err)
	}
	roots := x509.NewCertPool()
	for _, issuer := range chain[1:] {
		roots.AddCert(issuer)
	}
	return &client{config: &tls.Config{RootCAs: roots, ServerName: c.Names[0]}, addr: h.addr}
}

// visit makes handshakes until the returned function is called, which fails the
// test if any failed and tells which serial numbers were served.
func visit(t *testing.T, c *client) (end func() map[string]bool) {
	serials := make(map[string]bool) // read when done
	var stop atomic.Bool
	var done sync.WaitGroup
	done.Go(func() {
		for !stop.Load() {
			serial, err := c.serial()
			if err != nil {
				t.Errorf("handshake %d: %v", len(serials), err)
				return
			}
			serials[serial] = true
		}
	})
	end = sync.OnceValue(func() map[string]bool {
		stop.Store(true)
		done.Wait()
		return serials
	})
	t.Cleanup(func() { end() })
	return end
}
