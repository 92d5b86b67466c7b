// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
)

// historyRow is a generation in the history.
type historyRow struct {
	Epoch      uint64     `json:"epoch"`
	Generation uint64     `json:"generation"`
	At         time.Time  `json:"at"`
	Manager    string     `json:"manager"`
	Reason     string     `json:"reason"`
	Issuer     string     `json:"issuer,omitempty"` // that signed it
	Order      string     `json:"order,omitempty"`
	Serial     string     `json:"serial,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
	Revoked    *time.Time `json:"revoked,omitempty"`
}

func historyOf(c *manager.Managed) []historyRow {
	out := make([]historyRow, 0, len(c.History))
	for _, r := range c.History {
		out = append(out, historyRow{
			Epoch: r.Epoch, Generation: r.Generation, At: r.At, Manager: r.Manager.String(), Reason: r.Reason,
			Issuer: r.Issuer, Order: r.Order, Serial: fmt.Sprintf("%x", r.Serial),
			Expires: timeOrNil(r.NotAfter), Revoked: timeOrNil(r.Revoked),
		})
	}
	return out
}

// ends is when it expires, and that it was revoked before.
func (r historyRow) ends() string {
	switch {
	case r.Revoked != nil:
		return "revoked " + stamp(*r.Revoked)
	case r.Expires != nil:
		return stamp(*r.Expires)
	}
	return "-"
}

func newCertHistory() *cobra.Command {
	return oneID(&cobra.Command{
		Use:   "history ID",
		Short: "List the generations of a managed certificate",
		Long: fmt.Sprintf(`Lists the last %d generations: when, by which manager (the id of its signing
key), why (new, renewal, rekey, changed, ca, imported, removed), which issuer
signed it, serial and expiry. A removed certificate is found by its whole id.

Below stands what keeps the next generation from being there: an order that is
under way, the last failure in the CA's own words, name by name, a budget that is
used up, a pause. With --output json that is in "keyturn cert cat".`, event.MaxHistory),
		RunE: func(cmd *cobra.Command, id []string) error {
			return onOne(cmd, id[0], func(_ context.Context, _ *manager.Manager, c *manager.Managed) error {
				heading := []string{"Generation", "When", "Manager", "Why", "Issuer", "Serial", "Expires"}
				if err := printList(cmd, historyOf(c), heading, func(r historyRow) []string {
					return []string{
						strconv.FormatUint(r.Generation, 10), stamp(r.At), r.Manager, r.Reason,
						cmp.Or(r.Issuer, "-"), cmp.Or(r.Serial, "-"), r.ends(),
					}
				}); err != nil {
					return err
				}
				return printNow(cmd, c)
			})
		},
	})
}

// printNow prints what is under way, where no JSON is asked for.
func printNow(cmd *cobra.Command, c *manager.Managed) error {
	if asJSON, err := formatOf(cmd); err != nil || asJSON {
		return err
	}
	d := new(detail)
	d.underWay(c)
	for _, line := range d.now() {
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
			return err
		}
	}
	return nil
}
