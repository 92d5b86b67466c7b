// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/checkin"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/manager"
)

// defaultEvery is how often a timer is taken to fire that does not say so.
const defaultEvery = "1h"

func newRenew() *cobra.Command {
	var due bool
	var o manager.DueOptions
	var most string
	cmd := addConnectFlags(&cobra.Command{
		Use:   "renew --due",
		Short: "Do once what a running manager does all the time: for cron and timers",
		Long: `Makes one pass: renews every managed certificate that is due, those that are
marked first, then the soonest expiry; lets in hosts that wait to join; finishes
what another manager left undone; and tells the replicas what they should have.
Any number of timers and managers may run at once: each generation is made once.

One failure does not stop the rest; it is noted, backs off, and makes the exit
code 1. --check-in reports the pass to a dead-man's switch.`,
		Example: "  keyturn renew --due\n  keyturn renew --due --max 50 --for 10m --every 15m",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !due {
				return usagef("what shall be renewed? --due is all that is due; one certificate is renewed by `keyturn cert renew ID`")
			}
			if o.Max < 0 {
				return usagef("--max is %d: it cannot be below zero", o.Max)
			}
			if most != "" {
				d, err := config.ParseDuration(most)
				if err != nil {
					return usagef("--for: %w", err)
				}
				o.For = time.Duration(d)
			}
			c, err := passCheckIn(cmd)
			if err != nil {
				return err
			}
			p := &duePass{cmd: cmd, options: o}
			err = withManager(cmd, p.run)
			checkIn(cmd.Context(), cmd, c, checkin.Result{
				Passed: time.Now(), OK: err == nil, Due: len(p.rows), Renewed: p.renewed, Failed: p.failed,
			})
			return err
		},
	})
	f := cmd.Flags()
	f.BoolVar(&due, "due", false, "everything that is due")
	f.IntVar(&o.Max, "max", 0, "start at most this many renewals (default: all)")
	f.StringVar(&most, "for", "", "start no more after this time, such as 10m (default: --timeout)")
	f.String("every", defaultEvery, "how often the timer fires, so that replicas know when to expect word (KEYTURN_EVERY)")
	f.String("check-in", "", "URL of a dead-man's switch (KEYTURN_CHECK_IN)")
	f.String("check-in-ttl", "", "without another report for that long, something is wrong (KEYTURN_CHECK_IN_TTL; default: three times --every)")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// dueRow is what became of one certificate of a pass.
type dueRow struct {
	ID         string   `json:"id"`
	Names      []string `json:"names"`
	Generation uint64   `json:"generation"`
	Left       string   `json:"left,omitempty"` // why it was not attempted
	Error      string   `json:"error,omitempty"`
}

// A duePass is one pass and what came of it.
type duePass struct {
	cmd     *cobra.Command
	options manager.DueOptions
	rows    []dueRow
	renewed int
	failed  int
	first   string // which failed, and why
}

// run makes the pass and prints each certificate as it is done.
func (p *duePass) run(ctx context.Context, m *manager.Manager) error {
	asJSON, err := formatOf(p.cmd)
	if err != nil {
		return err
	}
	out := p.cmd.OutOrStdout()
	if !asJSON {
		p.options.Progress = func(r manager.DueResult) { fmt.Fprintln(out, dueLine(r)) }
	}
	results, err := m.RenewDue(ctx, p.options)
	p.take(results)
	switch {
	case asJSON:
		err = errors.Join(err, printJSON(p.cmd, p.rows))
	case len(p.rows) == 0 && err == nil:
		_, err = fmt.Fprintln(out, "nothing is due")
	}
	if p.failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d could not be renewed, the first of them %s", p.failed, len(p.rows), p.first))
	}
	return err
}

func (p *duePass) take(results []manager.DueResult) {
	p.rows = make([]dueRow, 0, len(results))
	for _, r := range results {
		row := dueRow{ID: r.ID, Names: r.Names, Generation: r.Generation}
		switch {
		case left(r.Err):
			row.Left = r.Err.Error() // somebody is at it, or will be
		case r.Err != nil:
			row.Error = r.Err.Error()
			p.failed++
			p.first = cmp.Or(p.first, fmt.Sprintf("%s (%s): %s", r.ID, strings.Join(r.Names, ", "), strings.ReplaceAll(row.Error, "\n", "; ")))
		default:
			p.renewed++
		}
		p.rows = append(p.rows, row)
	}
}

// left reports whether a certificate was not tried, which is no failure.
func left(err error) bool {
	var held *manager.HeldError
	return errors.Is(err, manager.ErrClaimed) || errors.Is(err, manager.ErrLeft) || errors.As(err, &held)
}

func dueLine(r manager.DueResult) string {
	if left(r.Err) {
		return fmt.Sprintf("%s  %s  left: %v", r.ID, strings.Join(r.Names, ","), r.Err)
	}
	if r.Err != nil {
		return fmt.Sprintf("%s  %s  failed: %s", r.ID, strings.Join(r.Names, ","), printable.Line(strings.ReplaceAll(r.Err.Error(), "\n", "; ")))
	}
	return fmt.Sprintf("%s  %s  renewed: generation %d", r.ID, strings.Join(r.Names, ","), r.Generation)
}
