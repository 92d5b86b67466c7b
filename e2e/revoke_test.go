// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// stolen is what somebody has who copied a host's directory.
type stolen struct {
	dir  string
	keys []*seal.PrivateKey // the group's, and the host's own
}

func steal(t *testing.T, r *webReplica) *stolen {
	t.Helper()
	s := &stolen{dir: filepath.Join(t.TempDir(), "copy")}
	copyDir(t, r.dir, s.dir)
	var err error
	if s.keys, err = seal.ReadPrivateKeyFile(replica.KeyFile(s.dir, "web")); err != nil {
		t.Fatal(err)
	}
	own, err := seal.ReadIdentityFile(filepath.Join(s.dir, replica.HostFile))
	if err != nil {
		t.Fatal(err)
	}
	s.keys = append(s.keys, own.Sealing...)
	return s
}

// copyDir copies a directory to where there is none, with modes and all.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-Rp", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copying %s: %v\n%s", from, err, out)
	}
}

// connect connects to the bus with the credentials, and tells when the
// connection has ended for good.
func (s *stolen) connect(url string) (*nats.Conn, <-chan struct{}, error) {
	ended := make(chan struct{})
	conn, err := nats.Connect(url, nats.UserCredentials(filepath.Join(s.dir, bus.ReplicaCreds)),
		nats.NoReconnect(), nats.ClosedHandler(func(*nats.Conn) { close(ended) }),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.Timeout(patience))
	return conn, ended, err
}

// opens returns how many of the certificates' private keys open.
func (s *stolen) opens(certificates []*event.Certificate) (n int) {
	for _, c := range certificates {
		if _, err := c.OpenKey(tenant, s.keys); err == nil {
			n++
		}
	}
	return n
}

// published returns what stands on the bus for the group.
func (w *web) published() (all []*event.Certificate) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	log, managers := w.bus(w.t, &instance{nats: w.nats}), w.managers(w.t)
	for u, err := range log.Follow(ctx, event.GroupScope("web"), bus.Position{}) {
		if err != nil {
			w.t.Fatal(err)
		}
		if u.CaughtUp {
			break
		}
		e, err := event.Open(managers, tenant, u.Key, u.Data)
		if err != nil {
			w.t.Fatalf("%s: %v", u.Key, err)
		}
		if c, ok := e.Body.(*event.Certificate); ok {
			all = append(all, c)
		}
	}
	return all
}

// TestRevokedReplica takes a host's rights away under handshakes: it gets
// nothing any more, and what it has opens nothing that is made from then on.
func TestRevokedReplica(t *testing.T) {
	t.Parallel()
	w := newWeb(t, 50, 3)
	revoked, others := w.replicas[0], w.replicas[1:]
	thief := steal(t, revoked)
	old := w.published()
	if n := thief.opens(old); len(old) != 50 || n != 50 {
		t.Fatalf("the host's keys open %d of %d private keys before it is revoked: want all 50", n, len(old))
	}
	conn, ended, err := thief.connect("nats://" + w.nats)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before, had := w.group("web"), w.generations()

	w.keyturn("replica", "revoke", revoked.name)
	eventually(t, "the end of the revoked host's connection", func() error {
		select {
		case <-ended:
			return nil
		default:
			return errors.New("it is open")
		}
	})
	if conn, _, err := thief.connect("nats://" + w.nats); !errors.Is(err, nats.ErrAuthorization) {
		conn.Close()
		t.Errorf("logging in with the revoked host's credentials: %v", err)
	}
	if n := thief.opens(w.published()); n > 0 {
		t.Errorf("the revoked host's keys open %d private keys once replica revoke has returned", n)
	}

	// What is published later arrives where it should, and nowhere else.
	const marker = "marker.web.example"
	if _, err := w.mk(marker); err != nil {
		t.Fatal(err)
	}
	w.replicas = others
	w.allConverged()
	for range 10 {
		if _, err := revoked.client(marker).handshake(); err == nil {
			t.Fatal("the revoked host serves what was published afterwards")
		}
	}
	eventually(t, "the revoked host's log", func() error {
		if text := revoked.server.err.String(); !strings.Contains(text, "this member is revoked") && !strings.Contains(strings.ToLower(text), "authorization") {
			return fmt.Errorf("it does not say what happened:\n%s", tail(text))
		}
		return nil
	})

	w.keyturn("cert", "renew", "--group", "web", "--reason", "compromised", "--wait", "served")
	w.rotated(before, had, "compromised")
	made := w.published()
	if n := thief.opens(made); len(made) != 51 || n > 0 {
		t.Errorf("the revoked host's keys open %d of %d private keys after all were made anew", n, len(made))
	}
	if n := thief.opens(old); n != 50 {
		t.Errorf("they open %d of the 50 that it knew", n)
	}
	for _, c := range old {
		serial, err := revoked.client(c.Names[0]).serial()
		if err != nil {
			t.Errorf("the revoked host: %v", err)
			continue
		}
		if g := w.cat(c.ID).History; serial == g[len(g)-1].Serial {
			t.Errorf("the revoked host serves the newest generation of %s", c.ID)
		}
	}
	w.watch.check(t, w.histories())
}
