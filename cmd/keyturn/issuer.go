// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
)

func newIssuer() *cobra.Command {
	return addConnectFlags(group("issuer", "Show the issuers, and look after their accounts",
		`Issuers are the CAs that the shared configuration names: "keyturn conf --help" shows
how. Each of type acme has one account, made when it is first used, whose key lies
sealed on the bus, for all managers.`,
		newIssuerLs(), newIssuerRollover()))
}

// issuerRow is an issuer in lists.
type issuerRow struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Default bool   `json:"default"`
	Used    bool   `json:"used"`
	// Address is where the CA is, if the settings say so; Directory of type acme.
	Address string `json:"address,omitempty"`
	// Directory and those after it are of type acme only.
	Directory   string       `json:"directory,omitempty"`
	Account     string       `json:"account,omitempty"`
	Contact     []string     `json:"contact,omitempty"`
	TermsAgreed bool         `json:"terms_agreed,omitempty"`
	Pause       *pauseDetail `json:"pause,omitempty"`
}

func issuerRowOf(i manager.IssuerInfo) issuerRow {
	return issuerRow{
		Name: i.Name, Type: i.Type, Default: i.Default, Used: i.Used, Address: i.Address,
		Directory: i.Directory, Account: i.Account, Contact: i.Contact, TermsAgreed: i.TermsAgreed, Pause: pauseOf(i.Pause),
	}
}

// notes are what stands out of an issuer.
func (r issuerRow) notes() string {
	var all []string
	if r.Default {
		all = append(all, "default")
	}
	if !r.Used {
		all = append(all, "never used")
	}
	if r.Pause != nil {
		all = append(all, r.Pause.String())
	}
	return cmp.Or(strings.Join(all, ", "), "-")
}

func newIssuerLs() *cobra.Command {
	return &cobra.Command{
		Use:               "ls",
		Aliases:           []string{"list"},
		Short:             "List the issuers of the shared configuration and their accounts",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				list, err := m.Issuers(ctx)
				if list == nil && err != nil {
					return err
				}
				var rows []issuerRow
				for _, i := range list {
					rows = append(rows, issuerRowOf(i))
				}
				return errors.Join(printList(cmd, rows, []string{"Name", "Type", "Address", "Account", "Note"}, func(r issuerRow) []string {
					return []string{r.Name, r.Type, cmp.Or(r.Directory, r.Address, "-"), cmp.Or(r.Account, "-"), r.notes()}
				}), err)
			})
		},
	}
}

func newIssuerRollover() *cobra.Command {
	return &cobra.Command{
		Use:   "rollover ISSUER",
		Short: "Give the account at an issuer a new key",
		Long: `Changes the key of the account at an issuer of type acme (RFC 8555 section 7.3.5),
making the account if there is none yet. Interrupted at any point, the next one who
asks the CA finds out which key counts; so does the same command. Managers that run
go on with the new key.`,
		Example: "  keyturn issuer rollover letsencrypt",
		Args: func(_ *cobra.Command, names []string) error {
			if len(names) != 1 {
				return usagef("one ISSUER is needed, not %d: `keyturn issuer ls` lists them", len(names))
			}
			if err := event.CheckName(names[0]); err != nil {
				return usagef("the issuer: %w", err)
			}
			return nil
		},
		ValidArgsFunction: completeIssuers,
		RunE: func(cmd *cobra.Command, names []string) error {
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				if err := m.RolloverAccount(ctx, names[0]); err != nil {
					return err
				}
				return done(cmd, map[string]any{"issuer": names[0], "rolled_over": true}, "the account at %s has a new key", names[0])
			})
		},
	}
}
