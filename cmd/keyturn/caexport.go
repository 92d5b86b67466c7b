// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
)

// exports are what "ca export" knows.
var exports = []string{"root", "chain", "crl"}

func newCAExport() *cobra.Command {
	var out string
	var der bool
	cmd := addCAFlag(&cobra.Command{
		Use:   "export [root|chain|crl]",
		Short: "Print what others need of a CA: its root, its chain, the list of what is revoked",
		Long: `Prints the root's certificate, which clients trust; the chain, intermediate and root,
for those who want to be given both; or a new list of what is revoked (RFC 5280), which
counts for a week unless crl_lifetime says otherwise: have a timer make it. Each list
has the next number and all that was revoked before. In PEM, the root's list follows,
on which nothing ever is: HAProxy and nginx want the lists of all who signed a chain.

--out replaces a file at once and whole, or leaves it alone if anything fails; a ">"
of the shell empties it first. Private keys are never exported: they lie on the bus,
sealed to the managers.`,
		Example: "  keyturn ca export root --out root.pem\n  keyturn ca export crl --out /srv/www/ca.crl --der",
		Args: func(_ *cobra.Command, what []string) error {
			if len(what) > 1 || len(what) == 1 && !slices.Contains(exports, what[0]) {
				return usagef("one of %s can be exported, not %q", strings.Join(exports, ", "), strings.Join(what, " "))
			}
			return nil
		},
		ValidArgsFunction: cobra.FixedCompletions(exports, cobra.ShellCompDirectiveNoFileComp),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "root"
			if len(args) == 1 {
				what = args[0]
			}
			if what == "chain" && der {
				return usagef("a chain is several certificates, and --der is for one: leave it out")
			}
			asJSON, err := formatOf(cmd)
			if err != nil {
				return err
			}
			if asJSON && der && out == "" {
				return usagef("JSON holds PEM: leave --der out, or give --out")
			}
			return onCA(cmd, func(ctx context.Context, m *manager.Manager, name string) error {
				kind, parts, err := exported(ctx, m, name, what)
				if err != nil {
					return err
				}
				return deliver(cmd, what, out, encoded(kind, parts, der))
			})
		},
	})
	cmd.Flags().StringVar(&out, "out", "", "write to this file (default: standard output)")
	cmd.Flags().BoolVar(&der, "der", false, "DER, as most who fetch a list from an address expect it, not PEM")
	_ = cmd.MarkFlagFilename("out") // the only error is a flag that does not exist
	return cmd
}

// exported returns what is asked for in DER, and the type of PEM blocks for it.
func exported(ctx context.Context, m *manager.Manager, name, what string) (kind string, parts [][]byte, err error) {
	if what == "crl" {
		parts, err = m.CRL(ctx, name)
		return "X509 CRL", parts, err
	}
	ca, err := m.CA(ctx, name)
	if err != nil {
		return "", nil, err
	}
	if what == "chain" {
		return "CERTIFICATE", [][]byte{ca.Intermediate.Raw, ca.Root.Raw}, nil
	}
	return "CERTIFICATE", [][]byte{ca.Root.Raw}, nil
}

func encoded(kind string, parts [][]byte, der bool) []byte {
	if der {
		return parts[0]
	}
	var text bytes.Buffer
	for _, p := range parts {
		_ = pem.Encode(&text, &pem.Block{Type: kind, Bytes: p}) // a Buffer takes all
	}
	return text.Bytes()
}

// exportedRow is what is exported, as PEM.
type exportedRow struct {
	Exported string `json:"exported"`
	PEM      string `json:"pem"`
}

// deliver writes what was exported to a file, or prints it.
func deliver(cmd *cobra.Command, what, out string, data []byte) error {
	asJSON, err := formatOf(cmd)
	switch {
	case err != nil:
		return err
	case out == "" && asJSON:
		return printJSON(cmd, exportedRow{what, string(bytes.TrimSpace(data))})
	case out == "":
		_, err := cmd.OutOrStdout().Write(data)
		return err
	}
	if err := durable.WriteFile(out, data, 0o644); err != nil { // everybody may know it
		return err
	}
	return done(cmd, map[string]string{"exported": what, "file": out}, "%s is in %s", map[string]string{
		"root": "the root's certificate", "chain": "the chain", "crl": "the list of what is revoked",
	}[what], out)
}

// chainPEM is a chain as servers read it.
func chainPEM(chain [][]byte) string { return string(encoded("CERTIFICATE", chain, false)) }
