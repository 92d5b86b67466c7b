// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/acme"
	"github.com/keyturn/keyturn/internal/durable"
)

// authorities are the scenarios of CAs that speak ACME.
func authorities() []scenario {
	return []scenario{
		{
			name: "acme",
			act: func(c *child) error {
				names := []string{public(c.tenant)}
				if err := c.makeAll(names); err != nil {
					return err
				}
				if err := c.renewAll(names, 2); err != nil {
					return err
				}
				return c.pass()
			},
			check: func(w *world) error { return w.ordered(2) },
		},
		{
			name:    "rollover",
			prepare: func(w *world) { w.make(public(w.tenant)) },
			act: func(c *child) error {
				if err := c.m.RolloverAccount(c.ctx, "pebble"); err != nil {
					return err
				}
				if err := c.renewAll([]string{public(c.tenant)}, 2); err != nil {
					return err
				}
				return c.pass() // copies what was committed before a kill
			},
			check: func(w *world) error { return w.ordered(2) },
		},
		{
			name:    "server",
			offline: true,
			prepare: func(w *world) {
				must(w.t, os.WriteFile(filepath.Join(w.dir, "directory"), []byte(w.stage.ca.Directory()), durable.PrivateFile),
					os.WriteFile(filepath.Join(w.dir, "roots"), []byte(w.stage.ca.WebRoots()), durable.PrivateFile))
			},
			act: (*child).serve,
			check: func(w *world) error {
				if n := w.stage.ca.Finalized(w.tenant + ".server.example"); n != 1 {
					return fmt.Errorf("%d orders were finalised for one certificate", n)
				}
				return nil
			},
		},
	}
}

// public returns the name that a world's certificate of a public CA is for. The CA knows
// the names of all worlds.
func public(tenant string) string { return tenant + ".pebble.example" }

// ordered returns an error unless that certificate is at a generation, each is of an
// order of its own, and no more orders were finalised.
func (w *world) ordered(generation uint64) error {
	name := public(w.tenant)
	if err := at(generation, name)(w); err != nil {
		return err
	}
	if n := w.stage.ca.Finalized(name); n != int(generation) {
		return fmt.Errorf("%d orders were finalised for %d generations", n, generation)
	}
	list, err := w.m.List(w.t.Context())
	if err != nil {
		return err
	}
	orders := make(map[string]bool)
	for _, r := range list[0].History {
		if r.Order == "" || orders[r.Order] {
			return fmt.Errorf("generation %d is of order %q", r.Generation, r.Order)
		}
		orders[r.Order] = true
	}
	return nil
}

// serve runs an ACME server until it has a certificate.
func (c *child) serve() error {
	directory, err := os.ReadFile(filepath.Join(c.dir, "directory"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(c.dir, "roots"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if block, _ := pem.Decode(text); block == nil || !roots.AppendCertsFromPEM(text) {
		return fmt.Errorf("%s holds no certificate", c.dir)
	}
	s, err := acme.Config{
		Names: []string{c.tenant + ".server.example"}, Directory: string(directory), TermsAgreed: true, Roots: roots,
		SkipCAA: true, Dir: filepath.Join(c.dir, "server"), Logger: slog.New(slog.DiscardHandler),
	}.Open(c.ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Wait(c.ctx)
}
