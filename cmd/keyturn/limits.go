// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/manager"
)

// limitRow is what is left of one limit.
type limitRow struct {
	Issuer  string      `json:"issuer"`
	What    string      `json:"what"`
	Of      string      `json:"of,omitempty"`
	Rate    config.Rate `json:"rate"`
	Left    int         `json:"left"`
	Reserve int         `json:"reserve"`
	Full    *time.Time  `json:"full_at,omitempty"` // absent: it is full
}

func newLimits() *cobra.Command {
	cmd := addConnectFlags(&cobra.Command{
		Use:   "limits [ISSUER]",
		Short: "Show what may still be asked of the issuers",
		Long: `Shows what is left of the rate limits of public CAs, by what all managers together
asked of them: new orders of the account, certificates of one registered domain
(domain) and of exactly the same names (set), and failed validations of one name
(failures). Each fills up evenly. What has not been drawn on lately is not listed.

Limits of Let's Encrypt are known; "limits" among an issuer's settings says those
of another CA. Some of each is left alone for certificates that end soon. What a CA
does not limit, such as a renewal that it asked for itself, is not counted. What has
to wait is in "keyturn cert renewable --all".`,
		Example: "  keyturn limits\n  keyturn limits letsencrypt",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, names []string) error {
			issuer := ""
			if len(names) == 1 {
				issuer = names[0]
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				list, err := m.Limits(ctx, issuer)
				if err != nil {
					return err
				}
				if len(list) == 0 && issuer != "" {
					fmt.Fprintf(cmd.ErrOrStderr(), "note: no limits of issuer %s are known; `limits` among its settings would say what its CA allows\n", issuer)
				}
				return printLimits(cmd, list)
			})
		},
	})
	cmd.ValidArgsFunction = completeIssuers
	return cmd
}

func printLimits(cmd *cobra.Command, list []manager.Limit) error {
	var rows []limitRow
	for _, l := range list {
		rows = append(rows, limitRow{l.Issuer, l.What, l.Of, l.Rate, l.Left, l.Reserve, timeOrNil(l.Full)})
	}
	return printList(cmd, rows, []string{"Issuer", "Limit", "Of", "Rate", "Left", "FullAt"}, func(r limitRow) []string {
		full := "now"
		if r.Full != nil {
			full = stamp(*r.Full)
		}
		return []string{r.Issuer, r.What, cmp.Or(printable.Line(r.Of), "-"), r.Rate.String(), strconv.Itoa(r.Left), full}
	})
}
