// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// signers returns the ids of the trusted managers' keys by "manager ls".
func (s *sandbox) signers() (ids []string) {
	s.t.Helper()
	var list []struct{ Key string }
	if err := json.Unmarshal([]byte(s.keyturn("manager", "ls", "--output", "json")), &list); err != nil {
		s.t.Fatalf("manager ls: %v", err)
	}
	for _, m := range list {
		ids = append(ids, m.Key)
	}
	return ids
}

// secondManager has the first one make a directory for another, and starts it
// with that and the group's keys.
func (w *web) secondManager() (*sandbox, *process) {
	t := w.t
	t.Helper()
	s := newSandbox(t)
	s.data = filepath.Join(s.state, "keyturn")
	w.keyturn("manager", "add", "second", "--dir", s.data)
	keys, err := seal.ReadPrivateKeyFile(replica.KeyFile(w.data, "web"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.data, "groups"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := seal.CreatePrivateKeyFile(replica.KeyFile(s.data, "web"), keys[0]); err != nil {
		t.Fatal(err)
	}
	return s, w.serveOn(s)
}

// forgeRemovals writes, as a manager with this identity, that certificates are
// removed,.
func (w *web) forgeRemovals(identity *seal.Identity, ids []string) {
	t := w.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	log := w.bus(t, &instance{nats: w.nats})
	for _, id := range ids {
		key := event.CertificateKey("web", id)
		entry, err := log.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		e, err := event.Trusted(tenant, entry.Data)
		if err != nil {
			t.Fatal(err)
		}
		version := e.Body.(*event.Certificate).Version
		version.Generation++
		data, err := event.Sign(identity.Signing, tenant, time.Now(), &event.Removal{Group: "web", ID: id, Version: version})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.Append(ctx, key, entry.Position, data); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReplaceManager adds a manager, has both work for a while, and revokes the
// first, under handshakes.
func TestReplaceManager(t *testing.T) {
	t.Parallel()
	w := newWeb(t, 10, 3)
	second, process := w.secondManager()
	for i, c := range w.rows() {
		by := []*sandbox{w.sandbox, second}[i%2]
		if _, err := by.renew(c.ID); err != nil {
			t.Fatal(err)
		}
	}
	w.allConverged()
	first := w.signers()
	if len(first) != 2 {
		t.Fatalf("the managers are %v", first)
	}
	identity, err := seal.ReadIdentityFile(filepath.Join(w.data, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	gone := identity.Signing.Public().ID().String()
	second.keyturn("manager", "revoke", gone)
	if now := second.signers(); len(now) != 1 || now[0] == gone {
		t.Fatalf("without %s the managers are %v", gone, now)
	}

	// The first one writes nothing that anybody believes: not by its commands, and
	// not by what its identity signs. What is renewed afterwards stands behind what
	// was forged, so that whoever serves it has seen that.
	rows := w.rows()
	w.refused(1, []string{"no longer, a manager of this bus"}, "cert", "renew", rows[0].ID)
	w.forgeRemovals(identity, []string{rows[0].ID, rows[1].ID})
	for _, c := range rows[1:] {
		if _, err := second.renew(c.ID); err != nil {
			t.Fatal(err)
		}
	}
	w.allConverged()

	w.join("lb4", second.keyturn("replica", "token", "web"))
	w.allConverged()
	w.watch.start(t, w.replicas[3])
	for _, c := range rows {
		if _, err := second.renew(c.ID); err != nil {
			t.Fatal(err)
		}
	}
	w.allConverged()
	second.keyturn("group", "key", "rotate", "web")
	w.allConverged()
	w.holdsOnly(w.group("web").Key)

	// The first one's host goes on being where the bus is, after a restart too.
	w.manager.stop(t, sigterm)
	w.serve()
	if _, err := second.renew(rows[0].ID); err != nil {
		t.Fatal(err)
	}
	w.allConverged()
	process.stop(t, sigterm)
	w.watch.check(t, w.histories())
}
