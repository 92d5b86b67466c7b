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
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/names"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

func newCertMk() *cobra.Command {
	var r manager.Request
	var wildcard, subdomain bool
	var list []string
	var key, lifetime, renewBefore string
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
be had, nothing stays behind.`,
		Args: func(_ *cobra.Command, domain []string) error {
			if len(domain) > 1 {
				return usagef("one DOMAIN at a time; a certificate for several names is made by --names %s", strings.Join(domain, ","))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, domain []string) (err error) {
			if cmd.Flags().Changed("names") && len(list) == 0 {
				return usagef("--names is empty")
			}
			if r.Names, err = plan(domain, list, wildcard, subdomain); err != nil {
				return err
			}
			if err := parseSpec(&r, key, lifetime, renewBefore); err != nil {
				return err
			}
			if _, err := wantsWait(cmd); err != nil {
				return err
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				c, err := m.Make(ctx, r)
				var exists *manager.ExistsError
				if errors.As(err, &exists) {
					return fmt.Errorf("%w: renew that one with `keyturn cert renew %s`, or make another with --force", err, exists.ID)
				}
				if err != nil {
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
	f.StringVar(&r.Issuer, "issuer", "", "issuer, by its name in the shared configuration (default: its default_issuer)")
	f.StringVar(&key, "key", "", "key type: "+keyTypes(" ")+" (default: the shared configuration's, else "+issuer.KeyType("").String()+")")
	f.StringVar(&lifetime, "lifetime", "", "validity to ask for, such as 90d or 720h (default: the issuer's)")
	f.StringVar(&renewBefore, "renew-before", "", "renew this long before the end: 30d, 720h or 33% (default: a third of the lifetime, half under ten days)")
	f.StringVar(&r.Group, "group", manager.DefaultGroup, "group of replicas that get it")
	f.BoolVar(&r.Force, "force", false, "even if these names are managed already")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	completeFlag(cmd, "key", strings.Fields(keyTypes(" "))...)
	completeGroupFlag(cmd)
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

func parseSpec(r *manager.Request, key, lifetime, renewBefore string) (err error) {
	if key != "" {
		if r.Key, err = issuer.ParseKeyType(key); err != nil {
			return usagef("--key: %w", err)
		}
	}
	if lifetime != "" {
		d, err := config.ParseDuration(lifetime)
		if err != nil {
			return usagef("--lifetime: %w", err)
		}
		if r.Lifetime = time.Duration(d); r.Lifetime < manager.MinLifetime {
			return usagef("--lifetime is %v: at least %v are needed", r.Lifetime, manager.MinLifetime)
		}
		if before, err := config.ParseDuration(renewBefore); err == nil && before >= d {
			return usagef("--renew-before %s is not shorter than --lifetime %s: the certificate would always be due", before, d)
		}
	}
	if r.RenewBefore, err = config.ParseRenewBefore(renewBefore); err != nil {
		return usagef("--renew-before: %w", err)
	}
	if err := event.CheckName(r.Group); err != nil {
		return usagef("--group: %w", err)
	}
	if r.Issuer != "" {
		if err := event.CheckName(r.Issuer); err != nil {
			return usagef("--issuer: %w", err)
		}
	}
	return nil
}
