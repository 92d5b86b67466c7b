// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// TestDynamoDB leads a fleet over a table through what befalls one: joins,
// renewals, a second manager, a time without the bus, a lost host, a new key.
func TestDynamoDB(t *testing.T) {
	t.Parallel()
	f := newTableFleet(t)
	ops := f.dir("ops")
	f.newManager(ops, tenant)
	serve := f.run(ops)
	f.keyturn("group", "mk", "web", "--data", ops)
	lb1, lb2 := f.join(ops, "lb1"), f.join(ops, "lb2")

	id := strings.TrimSpace(f.keyturn("cert", "mk", "www.example.com", "--subdomain", "--group", "web", "--wait", "served", "--data", ops))
	www := f.issued(ops, id)
	for _, h := range []*tableHost{lb1, lb2} {
		if err := h.visitor(www).sees(www.Certificate.Serial); err != nil {
			t.Errorf("%s: %v", h, err)
		}
	}
	visits := visit(t, lb1.visitor(www))
	f.keyturn("cert", "renew", id, "--wait", "served", "--data", ops)
	if got, want := f.counts(ops, id), [4]uint64{2, 2, 2, 2}; got != want {
		t.Errorf("status has generation, members, delivered, served = %v, want %v", got, want)
	}
	f.turnsByItself(t, ops, lb1)
	f.secondManager(t, ops, serve, id, lb2)
	if serials := visits(); len(serials) < 3 {
		t.Errorf("%d generations were seen, want the first three", len(serials))
	}
	serve = f.run(ops)
	f.withoutBus(t, ops, id, lb1)
	f.loseHost(t, ops, id, lb1, lb2)
	f.keyturn("cert", "rm", id, "--data", ops)
	eventually(t, "the end of a removed certificate", func() error {
		if serial, err := lb2.visitor(www).serial(); err == nil {
			return fmt.Errorf("%s is served still", serial)
		}
		return nil
	})
	serve.stop(t, sigterm)
}

// counts is what status says of a certificate.
func (f *tableFleet) counts(manager, id string) (n [4]uint64) {
	f.t.Helper()
	var fleet struct {
		Certificates []struct{ Generation, Members, Delivered, Served uint64 }
	}
	if err := json.Unmarshal([]byte(f.keyturn("status", id, "--data", manager, "-o", "json")), &fleet); err != nil || len(fleet.Certificates) != 1 {
		f.t.Fatalf("status %s: %v, %v", id, fleet, err)
	}
	c := fleet.Certificates[0]
	return [4]uint64{c.Generation, c.Members, c.Delivered, c.Served}
}

// turnsByItself watches a short-lived certificate, which has to be renewed in time
// by the manager that runs.
func (f *tableFleet) turnsByItself(t *testing.T, manager string, h *tableHost) {
	t.Helper()
	id := strings.TrimSpace(f.keyturn("cert", "mk", "short.example.com", "--subdomain", "--lifetime", "24s", "--group", "web", "--wait", "served", "--data", manager))
	visits := visit(t, h.visitor(f.issued(manager, id)))
	eventually(t, "generations of a short-lived certificate", func() error {
		if n := f.counts(manager, id); n[3] != 2 || n[0] < 4 {
			return fmt.Errorf("generation %d is served by %d", n[0], n[3])
		}
		return nil
	})
	if n := len(visits()); n < 3 {
		t.Errorf("%d generations were seen, want 3 or more", n)
	}
	if err := f.issued(manager, id).consistent(); err != nil {
		t.Error(err)
	}
	f.keyturn("cert", "rm", id, "--data", manager)
}

// secondManager adds a manager, which makes a pass while none runs.
func (f *tableFleet) secondManager(t *testing.T, manager string, serve *process, id string, h *tableHost) {
	t.Helper()
	second := f.dir("second")
	f.keyturn("manager", "add", "second", "--dir", second, "--data", manager)
	serve.stop(t, sigterm)
	f.keyturn("cert", "renew", id, "--wait", "served", "--data", second)
	f.keyturn("conf", "display", "--data", second)
	due := strings.TrimSpace(f.keyturn("cert", "mk", "due.example.com", "--subdomain", "--lifetime", "20s", "--group", "web", "--wait", "served", "--data", second))
	eventually(t, "a pass by the second manager", func() error {
		if out := f.keyturn("renew", "--due", "--data", second); !strings.Contains(out, due+"  due.example.com  renewed: generation 2") {
			return fmt.Errorf("renew --due says %q", out)
		}
		return nil
	})
	f.keyturn("status", due, "--wait", "--data", second)
	c := f.issued(manager, due)
	if err := h.visitor(c).sees(c.Certificate.Serial); err != nil {
		t.Error(err)
	}
	f.keyturn("cert", "rm", due, "--data", second)
}

// withoutBus takes the table away. A server that starts then serves what it had,
// and everything goes on when the table is back.
func (f *tableFleet) withoutBus(t *testing.T, manager, id string, h *tableHost) {
	t.Helper()
	before := f.issued(manager, id)
	c := h.visitor(before)
	f.server.Stop(t)
	if err := c.sees(before.Certificate.Serial); err != nil {
		t.Error(err)
	}
	h.kill(t)
	h.serve()
	if err := c.sees(before.Certificate.Serial); err != nil {
		t.Errorf("from the snapshot: %v", err)
	}
	f.refused(1, []string{f.server.Endpoint, "does not answer"}, "cert", "renew", id, "--data", manager)
	f.server.Resume(t)
	f.keyturn("cert", "renew", id, "--wait", "served", "--data", manager)
	after := f.issued(manager, id)
	if after.Generation != before.Generation+1 || after.Epoch != before.Epoch {
		t.Errorf("after %d.%d comes %d.%d: want one generation more", before.Epoch, before.Generation, after.Epoch, after.Generation)
	}
	if err := after.consistent(); err != nil {
		t.Error(err)
	}
	if err := c.sees(after.Certificate.Serial); err != nil {
		t.Error(err)
	}
}

// loseHost revokes one host and turns the group's key once more; the other goes on.
func (f *tableFleet) loseHost(t *testing.T, manager, id string, lost, kept *tableHost) {
	t.Helper()
	p, err := f.command(keyturn, "replica", "revoke", "lb1", "--data", manager)
	if err != nil || p.code != 0 {
		t.Fatalf("%v: %v\n%s", p, err, tail(p.err.String()))
	}
	if said := p.err.String(); !strings.Contains(said, "AWS still lets it in") {
		t.Errorf("replica revoke says nothing of AWS: %s", said)
	}
	f.keyturn("status", id, "--wait", "--data", manager)
	c := f.issued(manager, id)
	if err := kept.visitor(c).sees(c.Certificate.Serial); err != nil {
		t.Error(err)
	}
	if err := lost.visitor(c).sees(c.Certificate.Serial); err == nil {
		t.Error("the revoked host serves what was made after it was revoked")
	}
	f.keyturn("group", "key", "rotate", "web", "--data", manager)
	f.keyturn("status", id, "--wait", "--data", manager)
	turned := f.issued(manager, id)
	if turned.Generation <= c.Generation {
		t.Errorf("generation %d before the new key, %d after", c.Generation, turned.Generation)
	}
	if err := kept.visitor(turned).sees(turned.Certificate.Serial); err != nil {
		t.Error(err)
	}
}

// TestDynamoDBTenants has two tenants in one table, which see nothing of each
// other.
func TestDynamoDBTenants(t *testing.T) {
	t.Parallel()
	f := newTableFleet(t)
	for _, name := range []string{"acme", "umbrella"} {
		f.newManager(f.dir(name), name)
	}
	f.keyturn("group", "mk", "web", "--data", f.dir("acme"))
	f.keyturn("cert", "mk", "www.example.com", "--subdomain", "--group", "web", "--data", f.dir("acme"))
	for _, list := range [][]string{{"cert", "ls"}, {"group", "ls"}, {"status"}} {
		for name, want := range map[string]bool{"acme": true, "umbrella": false} {
			out := f.keyturn(append(list, "-o", "json", "--data", f.dir(name))...)
			if strings.Contains(out, `"web"`) != want {
				t.Errorf("%s: keyturn %s says %s", name, strings.Join(list, " "), out)
			}
		}
	}
	// With the wrong directory for a tenant nothing is believed.
	f.refused(1, []string{"not to be believed"}, "cert", "ls", "--data", f.dir("umbrella"), "--tenant", "acme")
}
