// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/manager"
)

func completeGroups(cmd *cobra.Command, got []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if len(got) == 0 {
		_ = withManager(cmd, func(ctx context.Context, m *manager.Manager) error { // completion has no place for errors
			list, err := m.Groups(ctx)
			for _, g := range list {
				names = append(names, g.Name)
			}
			return err
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeGroupFlag has the shell offer the groups for --group.
func completeGroupFlag(cmd *cobra.Command) {
	// The only error is a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("group", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return completeGroups(cmd, nil, typed)
	})
}

func completeIDs(cmd *cobra.Command, got []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
	if len(got) == 0 {
		_ = withManager(cmd, func(ctx context.Context, m *manager.Manager) error { // completion has no place for errors
			list, err := m.List(ctx)
			for _, c := range list {
				ids = append(ids, c.ID+"\t"+strings.Join(c.Spec.Names, ","))
			}
			return err
		})
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func completeMembers(cmd *cobra.Command, got []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
	if len(got) == 0 {
		_ = withManager(cmd, func(ctx context.Context, m *manager.Manager) error { // completion has no place for errors
			list, err := m.Members(ctx, "")
			for _, h := range list {
				if h.Revoked.IsZero() {
					ids = append(ids, h.ID+"\t"+h.Name)
				}
			}
			return err
		})
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func completeSigners(cmd *cobra.Command, got []string, _ string) (ids []string, _ cobra.ShellCompDirective) {
	if len(got) == 0 {
		_ = withManager(cmd, func(ctx context.Context, m *manager.Manager) error { // completion has no place for errors
			set, err := m.Signers(ctx)
			if err != nil {
				return err
			}
			for i, key := range set.Trusted() {
				if key.ID() != m.ID() {
					ids = append(ids, key.ID().String()+"\t"+set.Keys[i].Name)
				}
			}
			return nil
		})
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
