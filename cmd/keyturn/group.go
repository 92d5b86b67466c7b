// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

func newGroup() *cobra.Command {
	return addConnectFlags(group("group", "Make, list and remove groups of replicas, and turn their keys",
		`A group is the set of replicas that receive the same certificates and can open
their private keys. Its key pair is made into a file, by default in the data
directory; only the public half is on the bus. Whoever holds the file can let
replicas in: keyturn serve with it in its data directory, or "group grant".`,
		newGroupMk(), newGroupLs(), newGroupRm(), newGroupGrant(),
		group("key", "The group's key pair", "", newGroupKeyRotate())))
}

// addKeyFlag adds --key, where the group's private keys are.
func addKeyFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("key", "", "file of the group's private keys (default: groups/NAME.key in the data directory)")
	return cmd
}

// keyFile returns where a group's private keys are.
func keyFile(cmd *cobra.Command, name string) (string, error) {
	if file, _ := cmd.Flags().GetString("key"); file != "" {
		return file, nil
	}
	data, err := dataOf(cmd)
	if err != nil {
		return "", err
	}
	if data == "" {
		return "", usagef("without a data directory, --key FILE says where the private key of group %q is", name)
	}
	return replica.KeyFile(data, name), nil
}

// groupName is a command's only argument: the name of a group.
func groupName(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(_ *cobra.Command, names []string) error {
		if len(names) != 1 {
			return usagef("one GROUP is needed, not %d", len(names))
		}
		if err := event.CheckName(names[0]); err != nil {
			return usagef("the group: %w", err)
		}
		return nil
	}
	cmd.ValidArgsFunction = completeGroups
	return cmd
}

func newGroupMk() *cobra.Command {
	return addKeyFlag(groupName(&cobra.Command{
		Use:   "mk GROUP",
		Short: "Make a group and its key pair",
		Long: `Makes a group. Its private key is written to a new file, mode 0600; a file that
is there already is used. Keep a copy of it: what is sealed to a lost key
nobody can open. Then let hosts in with "keyturn replica token GROUP", and make
certificates for them with "keyturn cert mk --group GROUP".`,
		Example: "  keyturn group mk web\n  keyturn group mk web --key /secure/web.key",
		RunE: func(cmd *cobra.Command, names []string) error {
			name := names[0]
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				file, err := keyFile(cmd, name)
				if err != nil {
					return err
				}
				keys, err := makeKeyFile(file)
				if err != nil {
					return err
				}
				if err := m.AddGroup(ctx, name, keys[0].Public()); err != nil {
					return err
				}
				if asJSON, err := formatOf(cmd); err != nil || asJSON {
					return printJSON(cmd, map[string]string{"group": name, "key": keys[0].Public().ID().String(), "file": file})
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "group %s is made; its private key %s is in %s\n", name, keys[0].Public().ID(), file)
				return err
			})
		},
	}))
}

// makeKeyFile reads a group's private keys, making the first if there is no
// file.
func makeKeyFile(path string) ([]*seal.PrivateKey, error) {
	keys, err := seal.ReadPrivateKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return keys, err
	}
	if err := durable.MkdirAll(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("making the directory of a group's key: %w", err)
	}
	key, err := seal.GenerateKey()
	if err != nil {
		return nil, err
	}
	return []*seal.PrivateKey{key}, seal.CreatePrivateKeyFile(path, key)
}

// groupRow is a group in lists.
type groupRow struct {
	Name         string      `json:"name"`
	Key          string      `json:"key"`
	Certificates int         `json:"certificates"`
	Members      int         `json:"members"`
	Waiting      int         `json:"waiting"` // members without the group's keys yet
	Exposed      int         `json:"exposed"` // revoked members that know the key
	Retiring     []formerKey `json:"retiring"`
	Retired      []formerKey `json:"retired"`
}

// formerKey is a key that a group had.
type formerKey struct {
	Key    string    `json:"key"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
}

func formerKeys(list []event.FormerKey) []formerKey {
	out := make([]formerKey, 0, len(list))
	for _, k := range list {
		out = append(out, formerKey{k.ID.String(), k.At.UTC(), k.Reason})
	}
	return out
}

func newGroupLs() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the groups, their keys, certificates and members",
		Long: `Lists the groups: the id of the current key, how many certificates and members
there are, and former keys. "retiring" is a key to which certificates are still
sealed; "retired" one that nothing needs any more. "exposed" counts revoked
members that know the current key: turn it with "keyturn group key rotate".`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				list, err := m.Groups(ctx)
				if err != nil {
					return err
				}
				out := make([]groupRow, 0, len(list))
				for _, g := range list {
					out = append(out, groupRow{
						Name: g.Name, Key: g.Key.String(), Certificates: g.Certificates, Members: g.Members, Waiting: g.Waiting,
						Exposed: len(g.Exposed), Retiring: formerKeys(g.Retiring), Retired: formerKeys(g.Retired),
					})
				}
				return printList(cmd, out, []string{"Group", "Key", "Certificates", "Members", "Keys before"}, func(r groupRow) []string {
					members := strconv.Itoa(r.Members)
					if r.Waiting > 0 {
						members += fmt.Sprintf(" (%d without the key)", r.Waiting)
					}
					key := r.Key
					if r.Exposed > 0 {
						key += fmt.Sprintf(" (known to %d revoked)", r.Exposed)
					}
					return []string{r.Name, key, strconv.Itoa(r.Certificates), members, r.before()}
				})
			})
		},
	}
}

func (r groupRow) before() string {
	var out []string
	for _, k := range r.Retiring {
		out = append(out, k.Key+" retiring")
	}
	for _, k := range r.Retired {
		out = append(out, k.Key+" retired "+k.At.Format(time.DateOnly))
	}
	if len(out) == 0 {
		return "-"
	}
	return strings.Join(out, ", ")
}

func newGroupRm() *cobra.Command {
	return groupName(&cobra.Command{
		Use:   "rm GROUP",
		Short: "Remove a group that has no certificates and no members any more",
		Long: `Removes a group. It is refused while the group has managed certificates or
members that are not revoked. The file of its private key stays where it is.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				if err := m.RemoveGroup(ctx, names[0]); err != nil {
					return err
				}
				return done(cmd, map[string]any{"group": names[0], "removed": true}, "group %s is removed", names[0])
			})
		},
	})
}

func newGroupGrant() *cobra.Command {
	return addKeyFlag(groupName(&cobra.Command{
		Use:   "grant GROUP",
		Short: "Let in the hosts that wait to join, where no keyturn serve does",
		Long: `Takes the requests of hosts that hold a join token, and seals the group's keys
to each host that does not have them yet. A running "keyturn serve" that holds
the group's key does the same by itself, at once.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				keys, _, err := groupKeys(cmd, names[0])
				if err != nil {
					return err
				}
				n, err := m.Grant(ctx, names[0], keys)
				if err != nil {
					return err
				}
				return done(cmd, map[string]any{"group": names[0], "granted": n}, "%d granted the keys of group %s", n, names[0])
			})
		},
	}))
}

// groupKeys reads a group's private keys and says from where.
func groupKeys(cmd *cobra.Command, name string) ([]*seal.PrivateKey, string, error) {
	file, err := keyFile(cmd, name)
	if err != nil {
		return nil, "", err
	}
	keys, err := seal.ReadPrivateKeyFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, file, fmt.Errorf("the private key of group %q is not here: %w; name its file with --key, or run this where it is", name, err)
	}
	return keys, file, err
}

// findGroup returns a group by its name.
func findGroup(ctx context.Context, m *manager.Manager, name string) (*manager.Group, error) {
	list, err := m.Groups(ctx)
	for _, g := range list {
		if g.Name == name {
			return g, nil
		}
	}
	return nil, cmp.Or(err, fmt.Errorf("there is no group %q: `keyturn group ls` lists them", name))
}

// done prints a result: as JSON, or as a line.
func done(cmd *cobra.Command, v any, format string, a ...any) error {
	if asJSON, err := formatOf(cmd); err != nil || asJSON {
		return printJSON(cmd, v)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format+"\n", a...)
	return err
}
