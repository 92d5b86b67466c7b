// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// replicaSnapshot returns the directory of a replica's snapshot that a path names:
// itself, or the one in the directory that a host joined with; "" if there is none.
func replicaSnapshot(path string) string {
	for _, dir := range []string{path, filepath.Join(path, "snapshot")} {
		if _, err := replica.SnapshotKey(dir); err == nil {
			return dir
		}
	}
	return ""
}

// adopt takes what a replica's snapshot holds, and the bus does not know.
func (r *restoring) adopt(ctx context.Context, cmd *cobra.Command, m *manager.Manager, data, dir string, report *restoreReport) error {
	if data == "" {
		return usagef("what a replica holds is opened with its group's key: give --data")
	}
	group, keys, err := groupOf(datadir.At(data), dir)
	if err != nil {
		return err
	}
	tenant, err := datadir.At(data).Tenant()
	if err != nil {
		return err
	}
	said := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	events, err := replica.Held(dir, cmp.Or(tenant, manager.DefaultTenant), group, keys, said)
	if err != nil {
		return fmt.Errorf("reading what the replica in %s holds: %w", dir, err)
	}
	for _, data := range events {
		id, a, err := m.Adopt(ctx, data, r.issuer)
		report.took(cmd, id, a, err)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// groupOf finds the group whose key a replica's snapshot was written with.
func groupOf(d *datadir.Dir, dir string) (name string, keys []*seal.PrivateKey, err error) {
	id, err := replica.SnapshotKey(dir)
	if err != nil {
		return "", nil, err
	}
	files, err := os.ReadDir(filepath.Dir(replica.KeyFile(d.Path(), manager.DefaultGroup)))
	if err != nil {
		return "", nil, fmt.Errorf("looking for the groups' keys: %w", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(file.Name(), filepath.Ext(file.Name()))
		keys, err := d.GroupKeys(name)
		if err != nil {
			return "", nil, err
		}
		if slices.ContainsFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().ID() == id }) {
			return name, keys, nil
		}
	}
	return "", nil, fmt.Errorf("the replica's snapshot in %s was written with the group's key %s, which is not in %s", dir, id, d.File("groups"))
}
