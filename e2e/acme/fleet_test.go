// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/testprogram"
	"github.com/keyturn/keyturn/manager"
)

const group = "web"

// A fleet is a manager, and replicas of which none runs where the manager does: each has
// a loopback address of its own, and the ports that CAs look at.
type fleet struct {
	t                 *testing.T
	state             string // of the user who runs the manager
	httpPort, tlsPort int
}

// newFleet starts a manager with a shared configuration that follows from the ports.
func newFleet(t *testing.T, shared func(f *fleet) *config.Shared) *fleet {
	t.Helper()
	f := &fleet{t: t, state: t.TempDir(), httpPort: freePort(t), tlsPort: freePort(t)}
	text, err := shared(f).Encode()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, f.state, "", keyturn, "serve", "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0")
	eventually(t, "keyturn serve", func() error {
		if p.ended() {
			t.Fatalf("%s: it ended: %s", p, p.err.tail())
		}
		if !strings.Contains(p.err.String(), "keyturn serves") {
			return fmt.Errorf("it is not up: %s", p.err.tail())
		}
		return nil
	})
	command(t, f.state, string(text), "conf", "update")
	f.keyturn("group", "mk", group)
	return f
}

// freePort returns a port that nothing listens on, at any address.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := testprogram.FreePort("")
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func (f *fleet) keyturn(args ...string) string {
	f.t.Helper()
	return command(f.t, f.state, "", args...)
}

func (f *fleet) http(ip string) string { return net.JoinHostPort(ip, strconv.Itoa(f.httpPort)) }
func (f *fleet) tls(ip string) string  { return net.JoinHostPort(ip, strconv.Itoa(f.tlsPort)) }

// join starts a replica, and returns when it reports to the manager.
func (f *fleet) join(name, ip, program string) *process {
	f.t.Helper()
	state := f.t.TempDir()
	dir := filepath.Join(state, "replica")
	token := strings.TrimSpace(f.keyturn("replica", "token", group))
	command(f.t, state, "", "replica", "join", token, "--dir", dir, "--name", name)
	p := start(f.t, state, "", program, "--dir", dir, "--listen", f.tls(ip), "--http", f.http(ip))
	for _, addr := range []string{f.tls(ip), f.http(ip)} {
		eventually(f.t, name, func() error {
			if p.ended() {
				f.t.Fatalf("%s: it ended: %s", p, p.err.tail())
			}
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return err
			}
			return conn.Close()
		})
	}
	eventually(f.t, name, func() error {
		var fleet manager.Fleet
		if err := json.Unmarshal([]byte(f.keyturn("status", "--group", group, "--output", "json")), &fleet); err != nil {
			return err
		}
		for _, m := range fleet.Members {
			if m.Name == name && m.Following && !m.Silent {
				return nil
			}
		}
		return fmt.Errorf("it is none of those that follow: %+v", fleet.Members)
	})
	return p
}

// A certificate is what "cert cat" prints, as far as the tests look at it.
type certificate struct {
	ID, Key     string
	Names       []string
	Generation  uint64
	Certificate *struct {
		Serial   string
		ChainPEM string `json:"chain_pem"`
	}
}

// cat reads a certificate, and its chain.
func (f *fleet) cat(id string) (c certificate, chain []*x509.Certificate, err error) {
	if err := json.Unmarshal([]byte(f.keyturn("cert", "cat", id)), &c); err != nil {
		return c, nil, err
	}
	if c.Certificate == nil {
		return c, nil, errors.New("there is no certificate yet")
	}
	for rest := []byte(c.Certificate.ChainPEM); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return c, nil, err
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return c, nil, errors.New("the chain is empty")
	}
	return c, chain, nil
}
