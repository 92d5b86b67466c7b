// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/manager"
)

func newCert() *cobra.Command {
	return addConnectFlags(group("cert", "Make, list, renew and remove managed certificates",
		`A managed certificate has an id for life; every renewal is a new generation of
it, with a new key. An id may be given by any start of it that is unambiguous.

These commands work on the bus directly. They find it, and an identity, in the
data directory of a running instance or one that "keyturn manager add" made, or
through --bus, --creds and --identity.`,
		newCertMk(), newCertLs(), newCertCat(), newCertRenewable(), newCertRenew(), newCertSet(), newCertPause(), newCertResume(),
		newCertRevoke(), newCertRm(), newCertHistory()))
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

// made says in a few words what the newest generation is.
func made(c *manager.Managed) string {
	return fmt.Sprintf("generation %d, serial %s, expires %s", c.Generation, serial(c), stamp(expiry(c)))
}

// serial is that of the newest generation.
func serial(c *manager.Managed) string {
	return fmt.Sprintf("%x", c.History[len(c.History)-1].Serial)
}
