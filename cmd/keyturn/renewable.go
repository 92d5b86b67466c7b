// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
)

func newCertRenewable() *cobra.Command {
	var first, all bool
	cmd := &cobra.Command{
		Use:   "renewable [YYYY-MM-DD]",
		Short: "List what is due for renewal, and renew it if told to",
		Long: `Lists the managed certificates that are due now, or that will be by the end of
that day (UTC), the longest due first. Without a flag it changes nothing.

--renew-all renews what it lists; one failure does not stop the rest, and makes
the exit code 1. Cron and timers use "keyturn renew --due", which does all that
a manager does.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, day []string) error {
			if first && all {
				return usagef("--renew-first and --renew-all exclude each other")
			}
			by := time.Now()
			if len(day) == 1 {
				d, err := time.Parse(time.DateOnly, day[0])
				if err != nil {
					return usagef("%q is not a day of the form YYYY-MM-DD", day[0])
				}
				by = d.AddDate(0, 0, 1).Add(-1)
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				list, err := m.List(ctx)
				due := slices.DeleteFunc(list, func(c *manager.Managed) bool { return c.RenewAt().After(by) })
				slices.SortStableFunc(due, func(a, b *manager.Managed) int { return a.RenewAt().Compare(b.RenewAt()) })
				if first && len(due) > 1 {
					due = due[:1]
				}
				if first || all {
					return errors.Join(renewEach(cmd, m, due), err)
				}
				return errors.Join(printList(cmd, rows(due), []string{"Id", "RenewAt", "Names"}, func(r certRow) []string {
					return []string{r.ID, stamp(r.RenewAt), strings.Join(r.Names, ",")}
				}), err)
			})
		},
	}
	cmd.Flags().BoolVar(&first, "renew-first", false, "renew the one that is due longest")
	cmd.Flags().BoolVar(&all, "renew-all", false, "renew all of them; --timeout is for each")
	return cmd
}

// renewal is what became of one.
type renewal struct {
	certRow
	Error string `json:"error,omitempty"`
}

// renewOne gives each certificate the whole --timeout.
func renewOne(cmd *cobra.Command, m *manager.Manager, id string) (*manager.Managed, error) {
	ctx, cancel := limited(cmd)
	defer cancel()
	return m.Renew(ctx, id, event.ReasonRenewal)
}

// renewEach renews one after the other and reports each as it is done.
func renewEach(cmd *cobra.Command, m *manager.Manager, due []*manager.Managed) error {
	asJSON, err := formatOf(cmd)
	if err != nil {
		return err
	}
	results := make([]renewal, 0, len(due))
	failed := 0
	for _, c := range due {
		done, err := renewOne(cmd, m, c.ID)
		r := renewal{certRow: rowOf(c)}
		line := "failed: "
		if err != nil {
			failed++
			r.Error = err.Error()
			line += strings.ReplaceAll(r.Error, "\n", "; ")
		} else {
			r.certRow = rowOf(done)
			line = "renewed: " + made(done)
		}
		results = append(results, r)
		if !asJSON {
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", c.ID, strings.Join(c.Spec.Names, ","), line); err != nil {
				return err
			}
		}
	}
	if asJSON {
		if err := printJSON(cmd, results); err != nil {
			return err
		}
	}
	if len(due) == 0 && !asJSON {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing is due")
		return err
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d could not be renewed", failed, len(due))
	}
	return nil
}
