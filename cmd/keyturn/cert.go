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

	"github.com/keyturn/keyturn/event"
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
