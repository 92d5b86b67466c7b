// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/names"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
)

func newCert() *cobra.Command {
	return addConnectFlags(group("cert", "Make, list, renew and remove managed certificates",
		`A managed certificate has an id for life; every renewal is a new generation of
it, with a new key. An id may be given by any start of it that is unambiguous.

These commands work on the bus directly. They find it, and an identity, in the
data directory of a running instance or one that "keyturn manager add" made, or
through --bus, --creds and --identity.`,
		newCertMk(), newCertLs(), newCertCat(), newCertRenewable(), newCertRenew(), newCertRm(), newCertHistory()))
}

// certRow is a managed certificate in lists.
type certRow struct {
	ID         string     `json:"id"`
	Expires    *time.Time `json:"expires"` // null before the first generation
	Epoch      uint64     `json:"epoch"`
	Generation uint64     `json:"generation"`
	Group      string     `json:"group"`
	Issuer     string     `json:"issuer"`
	Serial     string     `json:"serial,omitempty"`
	Names      []string   `json:"names"`
	RenewAt    time.Time  `json:"renew_at"`
	Failure    string     `json:"failure,omitempty"`
}

func rowOf(c *manager.Managed) certRow {
	r := certRow{
		ID: c.ID, Epoch: c.Epoch, Generation: c.Generation, Group: c.Spec.Group, Issuer: c.Spec.Issuer,
		Names: c.Spec.Names, RenewAt: c.RenewAt().UTC().Truncate(time.Second),
	}
	if c.Certificate != nil {
		r.Expires, r.Serial = &c.Certificate.NotAfter, serial(c)
	}
	if c.Failure != nil {
		r.Failure = c.Failure.Message
	}
	return r
}

func (r certRow) expires() string {
	if r.Expires == nil {
		return "-"
	}
	return stamp(*r.Expires)
}

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

func newCertLs() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the managed certificates, the soonest expiry first",
		Args:    args(cobra.NoArgs),

		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				list, err := m.List(ctx)
				if list == nil && err != nil {
					return err
				}
				slices.SortStableFunc(list, func(a, b *manager.Managed) int { return expiry(a).Compare(expiry(b)) })
				return errors.Join(printList(cmd, rows(list), []string{"Id", "Expires", "Generation", "Issuer", "Names"}, func(r certRow) []string {
					return []string{r.ID, r.expires(), strconv.FormatUint(r.Generation, 10), r.Issuer, strings.Join(r.Names, ",")}
				}), err)
			})
		},
	}
}

func rows(list []*manager.Managed) []certRow {
	out := make([]certRow, 0, len(list))
	for _, c := range list {
		out = append(out, rowOf(c))
	}
	return out
}

// expiry is the zero Time for what has no certificate yet.
func expiry(c *manager.Managed) time.Time {
	if c.Certificate == nil {
		return time.Time{}
	}
	return c.Certificate.NotAfter
}

// onOne runs work with the certificate that an id, or the start of one, names.
func onOne(cmd *cobra.Command, id string, work func(context.Context, *manager.Manager, *manager.Managed) error) error {
	return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
		c, err := m.Find(ctx, id)
		if err != nil {
			return err
		}
		return work(ctx, m, c)
	})
}

// oneID is a command's only argument, completed from what is managed.
func oneID(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(_ *cobra.Command, ids []string) error {
		if len(ids) != 1 {
			return usagef("one ID is needed, not %d: `keyturn cert ls` lists them", len(ids))
		}
		return nil
	}
	cmd.ValidArgsFunction = completeIDs
	return cmd
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

func newCertCat() *cobra.Command {
	return oneID(&cobra.Command{
		Use:   "cat ID",
		Short: "Print everything about a managed certificate as JSON",
		Long: `Prints everything about a managed certificate as JSON, the PEM chain and the
sealed private key included. The private key itself is never printed.`,
		RunE: func(cmd *cobra.Command, id []string) error {
			return onOne(cmd, id[0], func(_ context.Context, _ *manager.Manager, c *manager.Managed) error {
				d, err := detailOf(c)
				if err != nil {
					return err
				}
				return printJSON(cmd, d)
			})
		},
	})
}

func newCertRenew() *cobra.Command {
	var g, reason string
	cmd := oneID(&cobra.Command{
		Use:   "renew ID | renew --group GROUP",
		Short: "Renew managed certificates now, whether they are due or not",
		Long: `Makes the next generation now, whether it is due or not: the same id, names,
issuer and key type, a new key. Returns when the generation is on the bus. If
another manager is at it, waits for that one's generation.

--group renews all certificates of a group. They are marked first, so that a
running manager goes on where this command is interrupted.`,
		Example: "  keyturn cert renew dSkmimj51P8 --wait served\n  keyturn cert renew --group web --reason compromised",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if reason != event.ReasonRekey && reason != event.ReasonCompromised {
				return usagef("--reason is %q: %s and %s are known", reason, event.ReasonRekey, event.ReasonCompromised)
			}
			if _, err := wantsWait(cmd); err != nil {
				return err
			}
			if g != "" {
				return renewGroup(cmd, g, reason)
			}
			return onOne(cmd, ids[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				c, err := m.Renew(ctx, c.ID, reason)
				if err != nil {
					return err
				}
				return errors.Join(done(cmd, rowOf(c), "%s is renewed: %s", c.ID, made(c)), waitIfAsked(ctx, cmd, m, c))
			})
		},
	})
	one := cmd.Args
	cmd.Args = func(cmd *cobra.Command, ids []string) error {
		if g == "" {
			return one(cmd, ids)
		}
		if len(ids) > 0 {
			return usagef("an ID and --group exclude each other")
		}
		if err := event.CheckName(g); err != nil {
			return usagef("--group: %w", err)
		}
		return nil
	}
	cmd.Flags().StringVar(&g, "group", "", "all certificates of this group")
	cmd.Flags().StringVar(&reason, "reason", event.ReasonRekey, "why, for the history: "+event.ReasonRekey+" or "+event.ReasonCompromised)
	completeFlag(cmd, "reason", event.ReasonRekey, event.ReasonCompromised)
	completeGroupFlag(cmd)
	return addWaitFlag(cmd)
}

// renewGroup marks the certificates of a group and makes what is marked.
func renewGroup(cmd *cobra.Command, name, reason string) error {
	return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
		n, err := m.RenewGroup(ctx, name, reason)
		if n == 0 && err != nil {
			return err
		}
		if err != nil {
			return fmt.Errorf("not all of the %d certificates of group %s that are marked were made anew; whoever runs tries again: %w", n, name, err)
		}
		errs := []error{done(cmd, map[string]any{"group": name, "renewed": n}, "%d certificates of group %s are renewed", n, name)}
		if wait, _ := wantsWait(cmd); wait { // checked already
			errs = append(errs, waitGroup(ctx, cmd, m, name))
		}
		return errors.Join(errs...)
	})
}

// made says in a few words what the newest generation is.
func made(c *manager.Managed) string {
	return fmt.Sprintf("generation %d, serial %s, expires %s", c.Generation, serial(c), stamp(expiry(c)))
}

// serial is that of the newest generation.
func serial(c *manager.Managed) string {
	return fmt.Sprintf("%x", c.History[len(c.History)-1].Serial)
}

func newCertRm() *cobra.Command {
	return oneID(&cobra.Command{
		Use:   "rm ID",
		Short: "End the management of a certificate",
		Long: `Ends the management of a certificate: replicas drop it and nothing renews it any
more. A renewal at the same moment never brings it back. It does not revoke the
certificate: whoever has its key can use it until it expires.`,
		RunE: func(cmd *cobra.Command, id []string) error {
			return onOne(cmd, id[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				if err := m.Remove(ctx, c.ID); err != nil {
					return err
				}
				return done(cmd, map[string]any{"id": c.ID, "removed": true}, "%s is removed; it is not revoked", c.ID)
			})
		},
	})
}

// historyRow is a generation in the history.
type historyRow struct {
	Epoch      uint64     `json:"epoch"`
	Generation uint64     `json:"generation"`
	At         time.Time  `json:"at"`
	Manager    string     `json:"manager"`
	Reason     string     `json:"reason"`
	Serial     string     `json:"serial,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
}

func historyOf(c *manager.Managed) []historyRow {
	out := make([]historyRow, 0, len(c.History))
	for _, r := range c.History {
		h := historyRow{Epoch: r.Epoch, Generation: r.Generation, At: r.At, Manager: r.Manager.String(), Reason: r.Reason, Serial: fmt.Sprintf("%x", r.Serial)}
		if !r.NotAfter.IsZero() {
			h.Expires = &r.NotAfter
		}
		out = append(out, h)
	}
	return out
}

func newCertHistory() *cobra.Command {
	return oneID(&cobra.Command{
		Use:   "history ID",
		Short: "List the generations of a managed certificate",
		Long: fmt.Sprintf(`Lists the last %d generations: when, by which manager (the id of its signing
key), why (new, renewal, rekey, removed), serial and expiry. A removed
certificate is found by its whole id.`, event.MaxHistory),
		RunE: func(cmd *cobra.Command, id []string) error {
			return onOne(cmd, id[0], func(_ context.Context, _ *manager.Manager, c *manager.Managed) error {
				return printList(cmd, historyOf(c), []string{"Generation", "When", "Manager", "Why", "Serial", "Expires"}, func(r historyRow) []string {
					expires := "-"
					if r.Expires != nil {
						expires = stamp(*r.Expires)
					}
					return []string{strconv.FormatUint(r.Generation, 10), stamp(r.At), r.Manager, r.Reason, cmp.Or(r.Serial, "-"), expires}
				})
			})
		},
	})
}
