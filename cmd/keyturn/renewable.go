// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/manager"
)

func newCertRenewable() *cobra.Command {
	var first, renew, all bool
	cmd := &cobra.Command{
		Use:   "renewable [YYYY-MM-DD]",
		Short: "List what is due for renewal, and why, and renew it if told to",
		Long: `Lists the managed certificates that are due now, or that will be by the end of
that day (UTC), the longest due first, and says why then: by the rule or
renew_before, by what the CA suggests, because somebody or something wants it anew,
or because the last attempt failed. --all lists the others, too, and what keeps
them: a budget that is used up, a pause, a manager that is at it. Without another
flag it changes nothing.

--renew-all renews what is due; one failure does not stop the rest, and makes
the exit code 1. Cron and timers use "keyturn renew --due", which does all that
a manager does.`,
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, day []string) error {
			if first && renew {
				return usagef("--renew-first and --renew-all exclude each other")
			}
			if all && (first || renew) {
				return usagef("--all only lists: give it without --renew-first and --renew-all")
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
				due, err := renewable(ctx, m, by, all)
				if first && len(due) > 1 {
					due = due[:1]
				}
				if first || renew {
					return errors.Join(renewEach(cmd, m, due), err)
				}
				return errors.Join(printList(cmd, due, []string{"Id", "RenewAt", "Due", "Why", "Names"}, func(r explainedRow) []string {
					return []string{r.ID, stamp(r.at), r.due(), r.why(), strings.Join(r.Names, ",")}
				}), err)
			})
		},
	}
	cmd.Flags().BoolVar(&first, "renew-first", false, "renew the one that is due longest")
	cmd.Flags().BoolVar(&renew, "renew-all", false, "renew all of them; --timeout is for each")
	cmd.Flags().BoolVar(&all, "all", false, "list what is not due, too")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// renewable returns what is due by a time, or everything, the longest due first.
func renewable(ctx context.Context, m *manager.Manager, by time.Time, all bool) ([]explainedRow, error) {
	list, err := m.List(ctx)
	var due []explainedRow
	explainer := m.NewExplainer(ctx)
	for _, c := range list {
		if r := explained(explainer, c); all || !r.at.IsZero() && !r.at.After(by) {
			due = append(due, r)
		}
	}
	byTime(due)
	return due, err
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
func renewEach(cmd *cobra.Command, m *manager.Manager, due []explainedRow) error {
	asJSON, err := formatOf(cmd)
	if err != nil {
		return err
	}
	results := make([]renewal, 0, len(due))
	failed := 0
	for _, c := range due {
		done, err := renewOne(cmd, m, c.ID)
		r := renewal{certRow: c.certRow}
		line := "failed: "
		if err != nil {
			failed++
			r.Error = err.Error()
			line += printable.Line(strings.ReplaceAll(r.Error, "\n", "; "))
		} else {
			r.certRow = rowOf(done)
			line = "renewed: " + made(done)
		}
		results = append(results, r)
		if !asJSON {
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", c.ID, strings.Join(c.Names, ","), line); err != nil {
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
