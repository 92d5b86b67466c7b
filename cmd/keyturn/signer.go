// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

func newManager() *cobra.Command {
	return addConnectFlags(group("manager", "List, add and revoke managers",
		`Every manager signs with a key of its own, and all share one key that opens what
is sealed to the managers. Several can be valid at once. Replicas follow: each
change is signed by a manager that they trust already.

To replace a manager's key: add one, run the manager with the new directory, and
revoke the old.`,
		newManagerInit(), newManagerLs(), newManagerAdd(), newManagerRevoke()))
}

func newManagerInit() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "init --bus URL --dir DIR",
		Short: "Make the first manager of a bus elsewhere, and its data directory",
		Long: `Makes a data directory with the identity of a first manager, and makes the log on
the bus. It is for a bus that this program does not run itself, and for fleets whose
managers are timers or functions: "keyturn serve --bus URL --data DIR" does the same
when it starts.

Keep a copy of the directory: what is on the bus can be opened and continued with
its files only.`,
		Example:           "  keyturn manager init --bus dynamodb://keyturn --dir keyturn",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			url := busURL(cmd)
			if dir == "" || url == "" {
				return usagef("--bus and --dir are needed: where the bus is, and a directory to make")
			}
			if _, err := bus.DriverOf(url); err != nil {
				return usagef("--bus: %w", err)
			}
			dir, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			ctx, cancel := limited(cmd)
			defer cancel()
			return initManager(ctx, cmd, dir, url)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "data directory to make")
	return cmd
}

// initManager does what a serve process does before it serves.
func initManager(ctx context.Context, cmd *cobra.Command, dir, url string) (err error) {
	in := &instance{
		config: serveConfig{Local: config.Local{Data: dir, Bus: url, Tenant: setting(cmd, "tenant")}},
		logger: slog.New(slog.DiscardHandler), out: cmd.OutOrStdout(),
	}
	in.status = status.New(in.logger)
	defer func() { err = errors.Join(err, in.stop()) }()
	if err := in.open(datadir.Production); err != nil {
		return err
	}
	if err := in.startBus(ctx); err != nil {
		return err
	}
	if err := in.makeManager(ctx); err != nil {
		return err
	}
	return done(cmd, map[string]string{"dir": dir, "bus": url, "key": in.manager.ID().String()},
		"the first manager of %s has the key %s; its data directory is %s: keep a copy of it", jetstream.Redact(url), in.manager.ID(), dir)
}

// signerRow is a manager in lists.
type signerRow struct {
	Key   string    `json:"key"`
	Name  string    `json:"name"`
	Added time.Time `json:"added"`
	Own   bool      `json:"own"` // the one that this command works as
	user  string    // who he is on the bus, where Keyturn granted it
}

func newManagerLs() *cobra.Command {
	return &cobra.Command{
		Use:               "ls",
		Aliases:           []string{"list"},
		Short:             "List the managers and the ids of their signing keys",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				set, err := m.Signers(ctx)
				if err != nil {
					return err
				}
				var rows []signerRow
				for i, key := range set.Trusted() {
					k := set.Keys[i]
					rows = append(rows, signerRow{key.ID().String(), k.Name, k.Added.UTC(), key.ID() == m.ID(), k.User})
				}
				return printList(cmd, rows, []string{"Key", "Name", "Added"}, func(r signerRow) []string {
					if r.Own {
						r.Name += " (this one)"
					}
					return []string{r.Key, r.Name, stamp(r.Added)}
				})
			})
		},
	}
}

func newManagerAdd() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "add NAME --dir DIR",
		Short: "Add a manager, and make its data directory",
		Long: `Makes a signing key for another manager, adds it to those that are trusted, and
writes a data directory for it: identity, credentials, and where the bus is. Move
that to the manager's host over a channel that you trust, and delete it here. Its
files open everything that is sealed to the managers.

There, "keyturn serve --data DIR" runs a manager, and every other command works
with --data DIR.`,
		Example:           "  keyturn manager add ops2 --dir ops2",
		ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(_ *cobra.Command, names []string) error {
			if len(names) != 1 {
				return usagef("one NAME is needed, not %d", len(names))
			}
			if err := event.CheckHost(names[0]); err != nil {
				return usagef("the manager's name: %w", err)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			if dir == "" {
				return usagef("--dir is needed: a new directory for the manager")
			}
			dir, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				id, err := addManager(ctx, m, names[0], dir)
				if err != nil {
					return err
				}
				return done(cmd, map[string]string{"name": names[0], "key": id.String(), "dir": dir},
					"manager %s has the key %s; its data directory is %s: move it to its host", names[0], id, dir)
			})
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory to make")
	return cmd
}

// addManager writes the directory first, so that no key is trusted that nobody
// has.
func addManager(ctx context.Context, m *manager.Manager, name, dir string) (id seal.KeyID, err error) {
	access, err := m.NewAccess(ctx, name)
	if err != nil {
		return id, err
	}
	c := datadir.Contents{
		Name: name, Tenant: access.Tenant, Identity: access.Identity, Managers: access.Managers,
		URL: strings.Join(access.Bus.URLs, ","), Roots: access.Bus.Roots, Creds: access.Creds,
	}
	if err := datadir.Make(dir, c); err != nil {
		return id, err
	}
	key := access.Identity.Signing.Public()
	if err := m.AddSigner(ctx, name, key, access.User); err != nil {
		return id, errors.Join(err, fmt.Errorf("the directory %s is of no use: remove it", dir))
	}
	return key.ID(), nil
}

func newManagerRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke KEY|NAME",
		Short: "Take a manager's key out of those that are trusted",
		Long: `Signs anew what the manager signed and what still stands on the bus, takes its key
out of those that are trusted, and has the credentials revoked by which it reached
the bus. From then on nobody believes what it signs, and its join tokens are void;
on DynamoDB its access is AWS's: take its user or role away there.
That retires a manager. A thief still knows what it knew, and no command replaces
that yet: the key that opens what is sealed to the managers, now and later, and, on
an embedded bus, the key that signs credentials, by which he can make himself new
ones, to read everything and to destroy, not to be believed. After a theft, keep him
from the port of the bus, see by "keyturn replica ls" and "keyturn group ls" that he
left no host and no key of his own behind, and set up the managers anew: SECURITY.md
says more.`,
		ValidArgsFunction: completeSigners,
		Args: func(_ *cobra.Command, keys []string) error {
			if len(keys) != 1 {
				return usagef("one KEY or NAME is needed, not %d: `keyturn manager ls` lists them", len(keys))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, keys []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				before, err := m.Signers(ctx)
				if err != nil {
					return err
				}
				if err := m.RevokeSigner(ctx, keys[0]); err != nil {
					return err
				}
				after, err := m.Signers(ctx)
				if err != nil {
					return err
				}
				gone := without(before, after)
				noteAWS(cmd, gone.user)
				return done(cmd, gone, "manager %s (%s) is revoked", gone.Name, gone.Key)
			})
		},
	}
}

// without returns the manager that is in the one set and not in the other.
func without(before, after *event.ManagerSet) (gone signerRow) {
	for i, key := range before.Trusted() {
		if !slices.ContainsFunc(after.Trusted(), key.Equal) {
			k := before.Keys[i]
			gone = signerRow{Key: key.ID().String(), Name: k.Name, Added: k.Added.UTC(), user: k.User}
		}
	}
	return gone
}
