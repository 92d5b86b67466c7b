// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/manager"
)

func newCertSet() *cobra.Command {
	var asked spec
	cmd := oneID(&cobra.Command{
		Use:   "set ID",
		Short: "Have a managed certificate from another issuer from now on",
		Long: `Changes whom a managed certificate is from, or what that is asked for, from the
next generation on. The id stays, and what is served is served on until the next
generation is there. A flag that is not given changes nothing; an empty --challenge
or --profile is the issuer's default again.

With another first issuer, or another profile, the certificate is marked for
renewal: a manager that runs renews it at once, "keyturn cert renew" does it here,
and "keyturn cert history" has it as "changed". An order that is under way at the
former issuer is not gone on with. What the issuers are known never to sign is
refused, and nothing is changed.`,
		Example: "  keyturn cert set dSkmimj51P8 --issuer google\n" +
			"  keyturn cert set dSkmimj51P8 --issuer letsencrypt,google --profile '' && keyturn cert renew dSkmimj51P8 --wait served",
		RunE: func(cmd *cobra.Command, id []string) error {
			to, err := asked.change(cmd)
			if err != nil {
				return err
			}
			return onOne(cmd, id[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				c, err := m.Change(ctx, c.ID, to)
				if err != nil {
					return err
				}
				from := "is from " + strings.Join(append([]string{c.Spec.Issuer}, c.Spec.Fallbacks...), ", else ")
				if c.Mark != nil && c.Pause == nil {
					return done(cmd, rowOf(c), "%s %s, and is due at once: `keyturn cert renew %s` where no manager runs", c.ID, from, c.ID)
				}
				return done(cmd, rowOf(c), "%s %s", c.ID, from)
			})
		},
	})
	asked.addIssuerFlags(cmd, "as it is", "as it is")
	return cmd
}

// change returns what the flags ask for; the error is one of usage.
func (s *spec) change(cmd *cobra.Command) (to manager.Change, err error) {
	if cmd.Flags().Changed("issuer") && len(s.issuers) == 0 {
		return to, usagef("--issuer is empty: `keyturn issuer ls` lists them")
	}
	to.Issuers = s.issuers
	if cmd.Flags().Changed("challenge") {
		to.Challenge = &s.challenge
	}
	if cmd.Flags().Changed("profile") {
		to.Profile = &s.profile
	}
	if len(to.Issuers) == 0 && to.Challenge == nil && to.Profile == nil {
		return to, usagef("nothing is to be changed: give --issuer, --challenge or --profile")
	}
	return to, s.checkIssuer()
}
