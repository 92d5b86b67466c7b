// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

// revoking is what "cert revoke" and "cert rm --revoke" tell the CA.
type revoking struct {
	options manager.RevokeOptions
	reason  string
}

// addFlags adds the flags of both.
func (r *revoking) addFlags(cmd *cobra.Command, standard issuer.Reason) {
	f := cmd.Flags()
	f.StringVar(&r.reason, "reason", standard.String(), "what the CA publishes: "+strings.Join(issuer.ReasonNames(), ", "))
	f.BoolVar(&r.options.ByKey, "by-key", false, "prove the right to it by the certificate's key, which the data directory's group key opens, not by the account")
	completeFlag(cmd, "reason", issuer.ReasonNames()...)
}

// parse reads the reason.
func (r *revoking) parse() (err error) {
	if r.options.Reason, err = issuer.ParseReason(r.reason); err != nil {
		return usagef("--reason: %w", err)
	}
	return nil
}

// revokedRow is what was revoked.
type revokedRow struct {
	ID         string `json:"id"`
	Generation uint64 `json:"generation"`
	Reason     string `json:"reason"`
	Removed    bool   `json:"removed"`
}

func newCertRevoke() *cobra.Command {
	var r revoking
	cmd := oneID(&cobra.Command{
		Use:   "revoke ID",
		Short: "Have the CA revoke a certificate",
		Long: `Has the CA that signed it revoke the newest generation, or another one of the
history. A newest one that is revoked is renewed at once, by whoever runs: clients
may refuse it. "keyturn cert rm --revoke" ends its management, too.

Who has the key of a certificate that is revoked can go on to use it wherever
clients do not ask. For key-compromise the new generation counts as made for that
reason. What the built-in CA revokes is on the lists that "keyturn ca export crl"
makes.`,
		Example: "  keyturn cert revoke dSkmimj51P8 --reason superseded\n  keyturn cert revoke dSkmimj51P8 --reason key-compromise --generation 7",
		RunE: func(cmd *cobra.Command, id []string) error {
			if err := r.parse(); err != nil {
				return err
			}
			return onOne(cmd, id[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				if err := m.Revoke(ctx, c.ID, r.options); err != nil {
					return err
				}
				row := revokedRow{ID: c.ID, Generation: r.options.Generation, Reason: r.reason}
				next := ""
				if row.Generation == 0 || row.Generation == c.Generation {
					row.Generation, next = c.Generation, "; it is due at once"
				}
				return done(cmd, row, "generation %d of %s is revoked: %s%s", row.Generation, c.ID, row.Reason, next)
			})
		},
	})
	r.addFlags(cmd, issuer.Unspecified)
	cmd.Flags().Uint64Var(&r.options.Generation, "generation", 0, "which one (default: the newest)")
	return cmd
}

func newCertRm() *cobra.Command {
	var r revoking
	revoke := false
	cmd := oneID(&cobra.Command{
		Use:   "rm ID",
		Short: "End the management of a certificate",
		Long: `Ends the management of a certificate: replicas drop it and nothing renews it any
more. A renewal at the same moment never brings it back. It does not revoke the
certificate: whoever has its key can use it until it expires. --revoke has its CA
do that first.`,
		Example: "  keyturn cert rm dSkmimj51P8 --revoke",
		RunE: func(cmd *cobra.Command, id []string) error {
			if !revoke && (cmd.Flags().Changed("reason") || r.options.ByKey) {
				return usagef("--reason and --by-key go with --revoke")
			}
			if err := r.parse(); err != nil {
				return err
			}
			return onOne(cmd, id[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				if !revoke {
					if err := m.Remove(ctx, c.ID); err != nil {
						return err
					}
					return done(cmd, map[string]any{"id": c.ID, "removed": true}, "%s is removed; it is not revoked", c.ID)
				}
				r.options.Remove = true
				if err := m.Revoke(ctx, c.ID, r.options); err != nil {
					return err
				}
				return done(cmd, revokedRow{c.ID, c.Generation, r.reason, true}, "%s is revoked (%s) and removed", c.ID, r.reason)
			})
		},
	})
	cmd.Flags().BoolVar(&revoke, "revoke", false, "have its CA revoke the newest generation first")
	r.addFlags(cmd, issuer.CessationOfOperation)
	return cmd
}
