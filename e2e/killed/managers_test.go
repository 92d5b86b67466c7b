// SPDX-License-Identifier: Apache-2.0

package killed

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

// managers are the scenarios of directories, logs, and who manages them.
func managers() []scenario {
	return []scenario{
		{
			name:    "directory",
			bare:    true,
			offline: true,
			act:     (*child).directory,
			check:   func(w *world) error { return nil },
		},
		{
			name: "init",
			bare: true,
			prepare: func(w *world) {
				must(w.t, os.WriteFile(filepath.Join(w.dir, "secret"), w.server.Secret(w.tenant), durable.PrivateFile),
					os.WriteFile(filepath.Join(w.dir, "config"), []byte(w.stage.config(w.dir)), durable.PrivateFile))
			},
			act: func(c *child) error {
				secret, err := os.ReadFile(filepath.Join(c.dir, "secret"))
				if err != nil {
					return err
				}
				text, err := os.ReadFile(filepath.Join(c.dir, "config"))
				if err != nil {
					return err
				}
				if err := begin(c.ctx, c.m, c.dir, secret, string(text)); err != nil {
					return err
				}
				return c.makeAll([]string{"a.ca.example"})
			},
			check: at(1, "a.ca.example"),
		},
		{
			name:    "managers",
			prepare: func(w *world) { w.make("a.ca.example", "b.ca.example"); w.second() },
			act:     (*child).managers,
			check: func(w *world) error {
				set, err := w.m.Signers(w.t.Context())
				if err != nil || len(set.Keys) != 2 || slices.ContainsFunc(set.Keys, func(k event.ManagerKey) bool { return k.Name == "second" }) {
					return fmt.Errorf("the managers are %+v, %w", set, err)
				}
				return at(2, "a.ca.example", "b.ca.example")(w)
			},
		},
	}
}

// directory makes and uses a manager's directory. What is there once is there always.
func (c *child) directory() error {
	dir := filepath.Join(c.dir, "other")
	remembered := filepath.Join(c.dir, "remembered")
	d, err := datadir.Open(dir, datadir.Production)
	if err != nil {
		return err
	}
	id, err := d.Identity()
	if err != nil {
		return err
	}
	keys, err := d.GroupKeys(manager.DefaultGroup)
	if err != nil {
		return err
	}
	name, err := d.Instance()
	if err != nil {
		return err
	}
	now := fmt.Sprintf("%s %s %s", id.Signing.Public().ID(), keys[0].Public().ID(), name)
	if before, err := os.ReadFile(remembered); err == nil && string(before) != now {
		return fmt.Errorf("the directory was that of %q, and is that of %q", before, now)
	}
	return errors.Join(
		os.WriteFile(remembered, []byte(now), durable.PrivateFile),
		d.Creds("manager.creds", func() ([]byte, error) { return []byte("credentials"), nil }),
		d.SetURL("nats://127.0.0.1:4222"), d.SetLogID("the-log"), d.SetManagerChain([]byte("chain")), d.Close())
}

// second adds another manager, and has it renew what is there.
func (w *world) second() {
	w.t.Helper()
	ctx := w.t.Context()
	own, err := datadir.At(w.dir).Identity()
	must(w.t, err)
	id, err := seal.NewIdentity()
	must(w.t, err)
	id.Sealing = own.Sealing
	must(w.t, w.m.AddSigner(ctx, "second", id.Signing.Public(), ""))
	m, err := manager.New(manager.Config{
		Log: w.conn, Logger: slog.New(slog.DiscardHandler), Identity: id, Managers: []*seal.VerifyKey{own.Signing.Public(), id.Signing.Public()}, Tenant: w.tenant, Instance: "second",
	})
	must(w.t, err)
	list, err := m.List(ctx)
	must(w.t, err)
	for _, c := range list {
		c, err := m.Renew(ctx, c.ID, event.ReasonRekey)
		must(w.t, err)
		w.kept[c.ID] = c.Version
	}
}

// managers adds one, and revokes the second.
func (c *child) managers() error {
	file := filepath.Join(c.dir, "third.pem")
	id, err := seal.ReadIdentityFile(file)
	if err != nil {
		if id, err = seal.NewIdentity(); err == nil {
			err = seal.CreateIdentityFile(file, id)
		}
	}
	if err != nil {
		return err
	}
	if err := c.m.AddSigner(c.ctx, "third", id.Signing.Public(), ""); err != nil {
		return err
	}
	if err := c.m.RevokeSigner(c.ctx, "second"); err != nil {
		return err
	}
	return c.pass()
}
