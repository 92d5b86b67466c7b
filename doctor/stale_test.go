// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/doctor"
)

func TestExpect(t *testing.T) {
	p := newPKI(t)
	older := p.intermediate.leaf(t, p.full, validity(-2*time.Hour, 20*time.Hour))
	newer := p.intermediate.leaf(t, p.full, validity(-time.Hour, 22*time.Hour))
	sibling := p.intermediate.leaf(t, p.full, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = newer.Leaf.NotBefore, newer.Leaf.NotAfter })
	stranger := p.intermediate.leaf(t, p.full, names("www.example.com"))
	for _, c := range []struct {
		name           string
		served, expect tls.Certificate
		want           string
		phrases        []string
	}{
		{"expected", newer, newer, "note as-expected", []string{"older than the rotation", "keyturn.Store.Drain"}},
		{"older", older, newer, "error stale", []string{"has not taken over the rotation", "reload or restart"}},
		{"newer", newer, older, "warning stale", []string{"newer than the expected"}},
		{"of the same age", newer, sibling, "error stale", []string{"has not taken over"}},
		{"of another name", newer, stranger, "error stale", []string{"the right file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := examine(t, serve(t, with(c.served), nil), doctor.Options{Roots: pool(p.root), Expect: c.expect.Leaf})
			check(t, r, []string{c.want}, c.phrases)
		})
	}
}

// TestCompare rotates a real Store under open connections and sessions.
func TestCompare(t *testing.T) {
	p := newPKI(t)
	older := p.intermediate.leaf(t, p.full, validity(-2*time.Hour, 20*time.Hour))
	newer := p.intermediate.leaf(t, p.full, validity(-time.Hour, 22*time.Hour))
	var store keyturn.Store
	put := func(cert tls.Certificate) {
		t.Helper()
		if err := store.Put("web", cert); err != nil {
			t.Fatal(err)
		}
	}
	put(older)
	address := serve(t, store.ServerConfig(), nil)
	options := doctor.Options{Roots: pool(p.root)}
	config := &tls.Config{RootCAs: options.Roots, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	dial := func() tls.ConnectionState {
		t.Helper()
		conn, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		// In TLS 1.3 the session comes with the first word.
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn.ConnectionState()
	}
	first := dial()
	before := examine(t, address, options)
	if list := before.Compare(first); list != nil {
		t.Errorf("before the rotation: %+v", list)
	}
	put(newer)
	after := examine(t, address, options)
	compare(t, after.Compare(first), []string{"error stale"}, []string{"because the connection is older than it", "keyturn.Store.Drain"})

	resumed := dial()
	if !resumed.DidResume {
		t.Fatal("the session was not resumed")
	}
	compare(t, after.Compare(resumed), []string{"error stale"}, []string{"because the connection resumed an old session"})

	config.ClientSessionCache = nil
	fresh := dial()
	if list := after.Compare(fresh); list != nil {
		t.Errorf("a new connection: %+v", list)
	}
	compare(t, before.Compare(fresh), []string{"error stale"}, []string{"several servers share the address"})
	if list := after.Compare(tls.ConnectionState{}); list != nil {
		t.Errorf("no connection: %+v", list)
	}
	if list := new(doctor.Report).Compare(fresh); list != nil {
		t.Errorf("no report: %+v", list)
	}
}
