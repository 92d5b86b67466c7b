// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// hosts are the scenarios of replicas.
func hosts() []scenario {
	return []scenario{{
		name: "replica",
		prepare: func(w *world) {
			w.make("a.ca.example", "b.ca.example")
			w.join("host")
			text, err := os.ReadFile(replica.KeyFile(w.dir, manager.DefaultGroup))
			must(w.t, err, os.WriteFile(filepath.Join(w.dir, "before"), text, durable.PrivateFile))
		},
		act:     (*child).follow,
		between: (*world).stillServed,
		check: func(w *world) error {
			return w.served("host", "a.ca.example", 3)
		},
	}}
}

// follow runs a replica, and meanwhile renews, removes, turns the group's key, and
// adds a manager. It says what is served, as it comes.
func (c *child) follow() error {
	dir := filepath.Join(c.dir, "host")
	r, err := replica.Open(c.ctx, replica.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler), OnChange: func(ch replica.Change) {
		fmt.Printf("served %s %d %d\n", ch.ID, ch.Version.Epoch, ch.Version.Generation)
	}})
	if err != nil {
		return err
	}
	defer r.Close()
	id, err := seal.NewIdentity()
	if err != nil {
		return err
	}
	for _, do := range []func() error{
		func() error { return c.renewAll([]string{"a.ca.example"}, 2) },
		func() error { return c.m.AddSigner(c.ctx, "third", id.Signing.Public(), "") },
		c.rotate,
		func() error { return c.removeAll([]string{"b.ca.example"}) },
		func() error { return c.renewAll([]string{"a.ca.example"}, 3) },
		c.pass,
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return c.settled(r)
}

// settled waits until the replica has what the log says, and has reported it.
func (c *child) settled(r *replica.Replica) error {
	keys, err := c.data.GroupKeys(manager.DefaultGroup)
	if err != nil {
		return err
	}
	for {
		states, err := c.states()
		if err != nil {
			return err
		}
		a, s := states["a.ca.example"], r.Status()
		if r.Version(a.ID) == a.Version && len(s.Keys) == 1 && s.Keys[0] == keys[0].Public().ID() && c.reported() {
			return nil
		}
		select {
		case <-c.ctx.Done():
			return fmt.Errorf("the replica has %s of %s, and the keys %v", r.Version(a.ID), a.Version, s.Keys)
		case <-time.After(10 * time.Millisecond): // and another look
		}
	}
}

// reported tells whether the host's report is on the board.
func (c *child) reported() bool {
	ctx, cancel := context.WithTimeout(c.ctx, time.Second)
	defer cancel()
	boarder, ok := c.conn.(bus.Boarder)
	if !ok {
		return false
	}
	for u, err := range boarder.Board().Follow(ctx, event.ReceiptScope, bus.Position{}) {
		if err != nil || u.CaughtUp {
			return false
		}
		return true
	}
	return false
}

// stillServed returns an error unless the host, with no bus, serves what it has said
// that it serves.
func (w *world) stillServed(said []string) error {
	dir := filepath.Join(w.dir, "host")
	url := filepath.Join(dir, bus.URLFile)
	if err := os.Rename(url, url+".away"); err != nil {
		return err
	}
	defer func() { _ = os.Rename(url+".away", url) }() // it was just there
	r, err := replica.Open(w.t.Context(), replica.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		if len(said) == 0 {
			return nil // it has never had anything
		}
		return err
	}
	defer r.Close()
	var errs []error
	for _, line := range said {
		f := strings.Fields(line)
		if len(f) != 4 || f[0] != "served" {
			continue
		}
		epoch, err1 := strconv.ParseUint(f[2], 10, 64)
		generation, err2 := strconv.ParseUint(f[3], 10, 64)
		v := event.Version{Epoch: epoch, Generation: generation}
		if is := r.Version(f[1]); err1 != nil || err2 != nil || is.Less(v) {
			errs = append(errs, fmt.Errorf("%s was served at %s, and now at %s", f[1], v, is))
		}
		if cert, ok := r.Store().Get(f[1]); ok {
			errs = append(errs, belongs(cert.Leaf, cert.PrivateKey))
		}
	}
	return errors.Join(errs...)
}

// served returns an error unless a host serves a generation.
func (w *world) served(host, name string, generation uint64) error {
	list, err := w.m.List(w.t.Context())
	if err != nil {
		return err
	}
	r, err := replica.Open(w.t.Context(), replica.Config{Dir: filepath.Join(w.dir, host), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer r.Close()
	<-r.CaughtUp()
	for _, c := range list {
		if c.Spec.Names[0] == name && (c.Generation < generation || r.Version(c.ID) != c.Version) {
			return fmt.Errorf("%s is at %s, and served at %s", name, c.Version, r.Version(c.ID))
		}
	}
	return nil
}
