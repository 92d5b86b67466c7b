// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/archive"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/seal"
)

// A verifyReport is what an archive holds, as --output json prints it.
type verifyReport struct {
	File         string         `json:"file"`
	Tenant       string         `json:"tenant"`
	Log          string         `json:"log"`
	Epoch        uint64         `json:"epoch"`
	Time         time.Time      `json:"time"`
	Newest       time.Time      `json:"newest"`
	Manager      string         `json:"manager"`
	Key          string         `json:"key"`
	Bytes        int64          `json:"bytes"`
	Certificates int            `json:"certificates"`
	Removed      int            `json:"removed"`
	Behind       int            `json:"behind"`
	Entries      map[string]int `json:"entries"`
	Superseded   int            `json:"superseded"`
	Managers     []string       `json:"managers"`
}

func newBusVerify() *cobra.Command {
	var managers, data string
	cmd := &cobra.Command{
		Use:   "verify FILE|-",
		Short: "Check a file that bus export, or a manager's snapshot, has written",
		Long: `Reads such a file to its end, and checks that it is whole and sealed by a manager,
that a manager signed each entry for the place where it stands, and that the states
of certificates and what replicas get agree; then it says what is in it. It needs no
bus and no secret, only the managers' public keys: managers.pub of a data directory
or of a host that joined.`,
		Example: "  keyturn bus verify keyturn.log\n  keyturn bus verify keyturn.log --managers managers.pub",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := trustedKeys(cmd, managers)
			if err != nil {
				return err
			}
			in, err := openArchive(cmd, args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			s, err := archive.Verify(in, keys)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return printSummary(cmd, args[0], s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&managers, "managers", "", "file of the managers' public keys (default: managers.pub of the data directory)")
	f.StringVar(&data, "data", "", "data directory of the instance (KEYTURN_DATA; default: that of keyturn serve, or of a dev instance)")
	return cmd
}

// trustedKeys reads the managers' keys from a file, or else from the data directory.
func trustedKeys(cmd *cobra.Command, file string) ([]*seal.VerifyKey, error) {
	if file != "" {
		return seal.ReadVerifyKeyFile(file)
	}
	dir := setting(cmd, "data")
	if dir == "" {
		var err error
		if dir, err = defaultData(); err != nil {
			return nil, err
		}
	}
	keys, err := datadir.At(dir).Managers()
	if err != nil {
		return nil, fmt.Errorf("%w: say with --managers FILE whose signatures count", err)
	}
	return keys, nil
}

// openArchive opens a file, or the standard input.
func openArchive(cmd *cobra.Command, file string) (io.ReadCloser, error) {
	if file == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening the archive: %w", err)
	}
	return f, nil
}

func printSummary(cmd *cobra.Command, file string, s *archive.Summary) error {
	r := verifyReport{
		File: file, Tenant: s.Tenant, Log: s.Log, Epoch: s.Epoch, Time: s.Time, Newest: s.Newest, Manager: s.Manager, Key: s.Signer.String(),
		Bytes: s.Size, Certificates: s.Certificates, Removed: s.Removed, Behind: s.Behind, Entries: s.Entries, Superseded: s.Superseded,
	}
	for _, m := range s.Managers {
		r.Managers = append(r.Managers, m.Name)
	}
	if asJSON, err := formatOf(cmd); err != nil || asJSON {
		return printJSON(cmd, r)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	line := func(what, format string, v ...any) {
		fmt.Fprintf(w, "%s\t%s\n", what, printable.Line(fmt.Sprintf(format, v...)))
	}
	line("good", "%s", file)
	line("log", "%s of tenant %s, epoch %d", s.Log, s.Tenant, s.Epoch)
	line("sealed by", "%s (%s)", s.Manager, s.Signer)
	line("begun", "%s", stamp(s.Time))
	line("newest entry", "%s", stamp(s.Newest))
	line("managers", "%s", strings.Join(r.Managers, ", "))
	line("certificates", "%d, and %d removed", s.Certificates, s.Removed)
	line("entries", "%s", countsOf(s.Entries))
	return w.Flush()
}

// countsOf says how many entries there are of each kind, of which there are any.
func countsOf[N int | uint64](entries map[string]N) string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(entries)) {
		if n := entries[kind]; n > 0 {
			all = append(all, fmt.Sprintf("%d %s", n, kind))
		}
	}
	return strings.Join(all, ", ")
}
