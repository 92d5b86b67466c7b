// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/seal"
)

func newGroupKeyRotate() *cobra.Command {
	var reason string
	cmd := addKeyFlag(groupName(&cobra.Command{
		Use:   "rotate GROUP",
		Short: "Give a group a new key pair, and renew its certificates to it",
		Long: `Makes a new key pair, puts its private half in front of the file, hands it to
the group's members, and renews every live certificate of the group to it, with
a new private key each. Replicas keep the old key until nothing needs it any
more; then it is retired, and "keyturn group ls" shows it as that.

Interrupted at any point, the same command goes on where it stopped. What is
served stays served throughout.`,
		RunE: func(cmd *cobra.Command, names []string) error {
			if reason != event.ReasonGroupKey && reason != event.ReasonCompromised {
				return usagef("--reason is %q: %s and %s are known", reason, event.ReasonGroupKey, event.ReasonCompromised)
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				key, file, err := rotateGroup(ctx, cmd, m, names[0], reason)
				if err != nil {
					return err
				}
				return done(cmd, map[string]any{"group": names[0], "key": key.String(), "file": file},
					"group %s has the new key %s, in %s", names[0], key, file)
			})
		},
	}))
	cmd.Flags().StringVar(&reason, "reason", event.ReasonGroupKey, "why, for the history: "+event.ReasonGroupKey+" or "+event.ReasonCompromised)
	completeFlag(cmd, "reason", event.ReasonGroupKey, event.ReasonCompromised)
	return cmd
}

// rotateGroup puts a new key into the group's file, unless an earlier run did
// that already, and turns the group to it.
func rotateGroup(ctx context.Context, cmd *cobra.Command, m *manager.Manager, name, reason string) (id seal.KeyID, file string, err error) {
	keys, file, err := groupKeys(cmd, name)
	if err != nil {
		return id, file, err
	}
	needed, err := needsKey(ctx, m, name, keys[0].Public().ID(), reason)
	if err != nil {
		return id, file, err
	}
	if needed {
		key, err := seal.GenerateKey()
		if err != nil {
			return id, file, err
		}
		keys = append([]*seal.PrivateKey{key}, keys...)
		if err := seal.WritePrivateKeyFile(file, keys...); err != nil {
			return id, file, err
		}
	}
	if err := m.RotateGroup(ctx, name, keys, reason); err != nil {
		return id, file, fmt.Errorf("%w; the same command goes on from here", err)
	}
	return keys[0].Public().ID(), file, nil
}

// needsKey reports whether a group has to get a key that is not made yet: not
// where the newest one is, or was just made, the group's by a rotation for the
// same reason that is not complete; but always where a host knows it whose rights
// were taken away.
func needsKey(ctx context.Context, m *manager.Manager, name string, newest seal.KeyID, reason string) (bool, error) {
	g, err := findGroup(ctx, m, name)
	if err != nil {
		return false, err
	}
	members, err := m.Members(ctx, name)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(members, func(h *manager.Member) bool {
		return !h.Revoked.IsZero() && slices.Contains(h.KeyIDs, newest)
	}) {
		return true, nil
	}
	n := len(g.Retiring)
	return newest == g.Key && (n == 0 || g.Retiring[n-1].Reason != reason), nil
}
