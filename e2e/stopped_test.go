// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

// TestManagerStopped stops a manager in the middle of a renewal for longer than
// its claim is respected. Another one makes the generation, and the first, when
// it goes on, publishes nothing of what it had begun.
func TestManagerStopped(t *testing.T) {
	t.Parallel()
	f := newManagers(t, 3)
	lib, conn := f.library(f.data)
	before, err := config.ParseRenewBefore("5s")
	if err != nil {
		t.Fatal(err)
	}
	// RSA keys of this length take so long that one can see who is at it. The claim
	// lapses after a sixth of the lifetime.
	c, err := lib.Make(t.Context(), manager.Request{Names: []string{nameOf(0)}, Issuer: "internal", Key: issuer.RSA4096, Lifetime: 3 * time.Minute, RenewBefore: before})
	if err != nil {
		t.Fatal(err)
	}
	var stopped *daemon
	var record event.Record
	for stopped == nil || record.Manager == stopped.key { // its commit was under way
		var n uint64
		stopped, n = f.stopWhoRenews(lib, conn, c.ID)
		t.Logf("%s is stopped, and has claimed generation %d", stopped.name, n)
		record = f.awaitGeneration(lib, c.ID, n)
		f.signal(stopped, syscall.SIGCONT)
	}
	// When it makes a later generation, it is through with the one that it lost.
	for latest := record; latest.Manager != stopped.key; {
		n := latest.Version.Generation + 1
		if err := lib.Mark(t.Context(), c.ID, event.ReasonRekey); err != nil {
			t.Fatal(err)
		}
		latest = f.awaitGeneration(lib, c.ID, n)
		if n > record.Version.Generation+50 {
			t.Fatalf("%s renews nothing any more:\n%s", stopped.name, tail(stopped.now().err.String()))
		}
	}
	now, err := lib.Get(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	serials := make(map[string]bool)
	for i, g := range now.History {
		if g.Version.Generation != uint64(i+1) {
			t.Errorf("generation %d stands where %d should", g.Version.Generation, i+1)
		}
		if g.Version == record.Version && fmt.Sprintf("%x", g.Serial) != fmt.Sprintf("%x", record.Serial) {
			t.Errorf("generation %d had serial %x and has %x", g.Version.Generation, record.Serial, g.Serial)
		}
		serials[fmt.Sprintf("%x", g.Serial)] = true
	}
	for _, m := range f.all {
		m.now().stop(t, sigterm)
		for _, line := range lines(m.now().err.String()) {
			at := attributes(line)
			if at["msg"] == "certificate is published" && at["managed_id"] == c.ID && !serials[at["serial"]] {
				t.Errorf("%s published what is not in the history: %s", m.name, line)
			}
			if m == stopped && at["msg"] == "certificate is published" && at["version"] == record.Version.String() {
				t.Errorf("%s published the generation that it had lost: %s", m.name, line)
			}
		}
	}
}

// stopWhoRenews marks the certificate until a manager, other than the one with
// the bus, is stopped between its claim and its commit; it returns the claimed generation.
func (f *managers) stopWhoRenews(lib *manager.Manager, conn bus.Conn, id string) (*daemon, uint64) {
	f.t.Helper()
	for range 50 {
		c, err := lib.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := lib.Mark(f.t.Context(), id, event.ReasonRekey); err != nil {
			f.t.Fatal(err)
		}
		m := f.claimant(lib, conn, c)
		if m == nil {
			f.awaitGeneration(lib, id, c.Generation+1)
			continue
		}
		f.signal(m, syscall.SIGSTOP)
		now, err := lib.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		if now.Generation == c.Generation && now.Claim != nil && now.Claim.Owner == m.instance {
			return m, now.Claim.Generation
		}
		f.signal(m, syscall.SIGCONT)
		f.awaitGeneration(lib, id, c.Generation+1)
	}
	f.t.Fatal("no manager could be stopped in the middle of a renewal")
	return nil, 0
}

// claimant follows the state from c on until somebody has claimed the next
// generation, or made it; nil if that is not a manager that can be stopped.
func (f *managers) claimant(lib *manager.Manager, conn bus.Conn, c *manager.Managed) *daemon {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	for _, err := range conn.Follow(ctx, event.StateKey(c.ID), c.Position) {
		if err != nil {
			f.t.Fatalf("nobody claims %s: %v", c.ID, err)
		}
		now, err := lib.Get(ctx, c.ID)
		if err != nil {
			f.t.Fatal(err)
		}
		switch {
		case now.Generation > c.Generation:
			return nil
		case now.Claim == nil:
			continue
		}
		for _, m := range f.all[1:] {
			if m.instance == now.Claim.Owner {
				return m
			}
		}
		return nil // the one with the bus
	}
	return nil
}

// awaitGeneration waits until a certificate has a generation, and returns its
// record.
func (f *managers) awaitGeneration(lib *manager.Manager, id string, generation uint64) event.Record {
	f.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		c, err := lib.Get(f.t.Context(), id)
		if err != nil {
			f.t.Fatal(err)
		}
		for _, g := range c.History {
			if g.Version.Generation == generation {
				return g
			}
		}
		if time.Now().After(end) {
			f.t.Fatalf("%s does not come to generation %d: claim %+v, failure %+v", id, generation, c.Claim, c.Failure)
		}
	}
}

func (f *managers) signal(m *daemon, sig syscall.Signal) {
	f.t.Helper()
	if err := m.now().signal(sig); err != nil {
		f.t.Fatal(err)
	}
}
