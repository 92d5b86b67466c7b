// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/names"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

func newCertMk() *cobra.Command {
	var asked spec
	var wildcard, subdomain bool
	var list []string
	cmd := &cobra.Command{
		Use:   "mk DOMAIN | mk --names NAME,…",
		Short: "Make a managed certificate and print its id",
		Long: `Makes a managed certificate and prints its id once the first generation is on
the bus.

  keyturn cert mk example.com               www.example.com and example.com
  keyturn cert mk example.com --wildcard    *.example.com and example.com
  keyturn cert mk api.example.com --subdomain    api.example.com alone
  keyturn cert mk --names a.example.com,b.example.com,10.0.0.1    just these

If exactly these names are managed in the group already, it is refused, with
the id that has them; --force makes another one. If the first generation cannot
be had, nothing stays behind. An exception is an order that may have become a
certificate at the CA: the error names the id, and the same command goes on with
it. So does a manager that runs; "keyturn cert rm" gives it up.

A public CA has to be shown that the names are yours. For http-01 and tls-alpn-01
the group's replicas answer it, or a solver of the shared configuration; for
dns-01, which a wildcard needs, always such a solver.`,
		Example: "  keyturn cert mk example.com --issuer letsencrypt,google --challenge http-01\n" +
			"  keyturn cert mk example.com --wildcard --issuer letsencrypt --challenge dns-01",
		Args: func(_ *cobra.Command, domain []string) error {
			if len(domain) > 1 {
				return usagef("one DOMAIN at a time; a certificate for several names is made by --names %s", strings.Join(domain, ","))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, domain []string) error {
			if cmd.Flags().Changed("names") && len(list) == 0 {
				return usagef("--names is empty")
			}
			all, err := plan(domain, list, wildcard, subdomain)
			if err != nil {
				return err
			}
			r, err := asked.request()
			if err != nil {
				return err
			}
			r.Names = all
			if err := provable(r); err != nil {
				return err
			}
			if _, err := wantsWait(cmd); err != nil {
				return err
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				c, err := m.Make(ctx, r)
				var exists *manager.ExistsError
				switch {
				case errors.As(err, &exists) && exists.Unmade:
					return fmt.Errorf("%w: go on with it by `keyturn cert renew %s`, give it up by `keyturn cert rm %s`, or make another with --force", err, exists.ID, exists.ID)
				case errors.As(err, &exists):
					return fmt.Errorf("%w: renew that one with `keyturn cert renew %s`, or make another with --force", err, exists.ID)
				case err != nil:
					return err
				}
				if got := expiry(c).Sub(c.Issued); r.Lifetime-got > time.Minute {
					fmt.Fprintf(cmd.ErrOrStderr(), "note: the issuer gave %v instead of the %v asked for\n",
						config.Duration(got.Round(time.Second)), config.Duration(r.Lifetime))
				}
				return errors.Join(done(cmd, rowOf(c), "%s", c.ID), waitIfAsked(ctx, cmd, m, c))
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&wildcard, "wildcard", false, "*.DOMAIN and DOMAIN")
	f.BoolVar(&subdomain, "subdomain", false, "DOMAIN alone")
	f.StringSliceVar(&list, "names", nil, "just these DNS names and IP addresses, without DOMAIN")
	f.StringVar(&asked.key, "key", "", "key type: "+keyTypes(" ")+" (default: the shared configuration's, else "+issuer.KeyType("").String()+")")
	f.StringVar(&asked.lifetime, "lifetime", "", "validity to ask for, such as 90d or 720h (default: the issuer's)")
	asked.addFlags(cmd)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	completeFlag(cmd, "key", strings.Fields(keyTypes(" "))...)
	return addWaitFlag(cmd)
}

func keyTypes(sep string) string {
	var all []string
	for _, k := range issuer.KeyTypes() {
		all = append(all, k.String())
	}
	return strings.Join(all, sep)
}

// plan turns what was typed into names.
func plan(domain, list []string, wildcard, subdomain bool) ([]string, error) {
	switch {
	case len(list) > 0 && (len(domain) > 0 || wildcard || subdomain):
		return nil, usagef("--names stands alone: without DOMAIN, --wildcard and --subdomain")
	case len(list) > 0:
		for i := range list {
			list[i] = strings.TrimSpace(list[i])
		}
		return usable(names.NormalizeList(list))
	case len(domain) == 0:
		return nil, usagef("which DOMAIN? Or give --names")
	}
	return usable(names.Plan(domain[0], wildcard, subdomain))
}

// usable makes what is wrong with names a usage error: they were typed.
func usable(all []string, err error) ([]string, error) {
	if err != nil {
		return nil, &usageError{err}
	}
	return all, nil
}
