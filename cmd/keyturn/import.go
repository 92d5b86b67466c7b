// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/lineage"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/manager"
)

func newImport() *cobra.Command {
	var asked spec
	var chain, key, certbot string
	cmd := addConnectFlags(&cobra.Command{
		Use:   "import --pem FILE --key FILE | import --certbot DIR",
		Short: "Take over certificates that another program obtained",
		Long: `Makes a certificate that is there already the first generation of a managed one:
replicas serve it as it is, and the issuer renews it when it is due, with a new key.
Its names are those in it.

--certbot takes over everything that certbot keeps in a directory, such as
/etc/letsencrypt, or one lineage, such as /etc/letsencrypt/live/example.com. Certbot
itself is left as it is: stop its timer when Keyturn serves the certificates.

A private key that others than its owner can read is imported all the same, and a
note says so.

What is managed already in the group is left alone, so that the command can be
repeated. One failure does not stop the rest, and makes the exit code 1.`,
		Example: "  keyturn import --pem fullchain.pem --key privkey.pem --issuer letsencrypt --challenge http-01\n" +
			"  keyturn import --certbot /etc/letsencrypt --issuer letsencrypt --group web",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := asked.request()
			if err != nil {
				return err
			}
			pairs, err := pairsOf(chain, key, certbot)
			if err != nil {
				return err
			}
			return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
				return importAll(ctx, cmd, m, pairs, r)
			})
		},
	})
	f := cmd.Flags()
	f.StringVar(&chain, "pem", "", "file of the certificate and its chain, PEM")
	f.StringVar(&key, "key", "", "file of the private key, PEM")
	f.StringVar(&certbot, "certbot", "", "directory of certbot's, or of one of its lineages")
	asked.addFlags(cmd)
	_ = cmd.MarkFlagFilename("pem") // the only error is a flag that does not exist
	_ = cmd.MarkFlagFilename("key")
	_ = cmd.MarkFlagDirname("certbot")
	return cmd
}

// pairsOf returns what is to be imported.
func pairsOf(chain, key, certbot string) ([]lineage.Pair, error) {
	switch {
	case certbot != "" && (chain != "" || key != ""):
		return nil, usagef("--certbot stands alone: without --pem and --key")
	case certbot != "":
		return lineage.Certbot(certbot)
	case chain == "" || key == "":
		return nil, usagef("what shall be taken over? --pem FILE and --key FILE, or --certbot DIR")
	}
	return []lineage.Pair{{Name: chain, Chain: chain, Key: key}}, nil
}

// importRow is what became of one pair.
type importRow struct {
	From    string     `json:"from"`
	ID      string     `json:"id,omitempty"`
	Names   []string   `json:"names,omitempty"`
	Expires *time.Time `json:"expires,omitempty"`
	RenewAt *time.Time `json:"renew_at,omitempty"`
	// Imported is false where the names are managed already, and after an error.
	Imported bool   `json:"imported"`
	Error    string `json:"error,omitempty"`
}

func (r importRow) String() string {
	switch {
	case r.Error != "":
		return fmt.Sprintf("%s  failed: %s", r.From, printable.Line(strings.ReplaceAll(r.Error, "\n", "; ")))
	case !r.Imported:
		return fmt.Sprintf("%s  %s  is managed already, as %s", r.From, strings.Join(r.Names, ","), r.ID)
	}
	return fmt.Sprintf("%s  %s  is imported as %s: expires %s, is renewed %s", r.From, strings.Join(r.Names, ","), r.ID, stamp(*r.Expires), stamp(*r.RenewAt))
}

// importAll takes over one pair after the other and prints each as it is done.
func importAll(ctx context.Context, cmd *cobra.Command, m *manager.Manager, pairs []lineage.Pair, r manager.Request) error {
	asJSON, err := formatOf(cmd)
	if err != nil {
		return err
	}
	rows, failed := make([]importRow, 0, len(pairs)), 0
	for _, p := range pairs {
		row := importOne(ctx, m, p, r)
		if row.Error != "" {
			failed++
		}
		rows = append(rows, row)
		if problem := p.Exposed(); problem != "" && row.Imported {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: %s; if somebody may have, make a new one: keyturn cert renew %s --reason compromised\n", problem, row.ID)
		}
		if !asJSON {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), row); err != nil {
				return err
			}
		}
	}
	if asJSON {
		err = printJSON(cmd, rows)
	}
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d of %d could not be imported", failed, len(pairs)))
	}
	return err
}

func importOne(ctx context.Context, m *manager.Manager, p lineage.Pair, r manager.Request) importRow {
	row := importRow{From: p.Name}
	chain, key, err := p.Read()
	if err != nil {
		row.Error = err.Error()
		return row
	}
	c, err := m.Import(ctx, manager.ImportRequest{Request: r, Chain: chain, Key: key})
	var exists *manager.ExistsError
	switch {
	case errors.As(err, &exists):
		row.ID, row.Names = exists.ID, exists.Names
	case err != nil:
		row.Error = err.Error()
	default:
		at := c.RenewAt().UTC().Truncate(time.Second)
		row.ID, row.Names, row.Expires, row.RenewAt, row.Imported = c.ID, c.Spec.Names, &c.Certificate.NotAfter, &at, true
	}
	return row
}
