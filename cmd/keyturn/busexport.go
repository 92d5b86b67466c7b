// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/manager"
)

// copyTimeout is how long commands get that go through all of a log, unless
// --timeout says otherwise: a hundred thousand certificates are some 600 MB.
const copyTimeout = "1h"

// addCopyFlags is addConnectFlags with copyTimeout.
func addCopyFlags(cmd *cobra.Command) *cobra.Command {
	addConnectFlags(cmd)
	f := cmd.PersistentFlags().Lookup("timeout")
	f.DefValue = copyTimeout
	_ = f.Value.Set(copyTimeout) // it is a duration
	return cmd
}

// An exportReport is what "bus export" did, as --output json prints it.
type exportReport struct {
	File    string `json:"file"`
	Tenant  string `json:"tenant"`
	Log     string `json:"log"`
	Epoch   uint64 `json:"epoch"`
	Entries uint64 `json:"entries"`
	Bytes   int64  `json:"bytes"`
	LeftOut int    `json:"left_out"`
}

func newBusExport() *cobra.Command {
	return addCopyFlags(&cobra.Command{
		Use:   "export FILE|-",
		Short: "Write all that stands on the bus to a file",
		Long: `Writes the newest entry of every key to a file of mode 0600, sealed with this
manager's signature; "-" is the standard output. Managers and replicas go on
meanwhile; the embedded bus may also stand still. Entries are signed and private keys sealed as on the bus: the file gives
none away without identity.pem or groups/, which it does not hold.

The file is there whole, or not at all. Check one with "keyturn bus verify", put it
on an empty bus with "keyturn bus import", and rebuild a lost one from it with
"keyturn bus restore".`,
		Example: "  keyturn bus export keyturn.log\n  keyturn bus export - | age -r age1… > keyturn.log.age",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onBus(cmd, func(ctx context.Context, m *manager.Manager, _ madeLog) error {
				return export(ctx, cmd, m, args[0])
			})
		},
	})
}

// export writes an archive to a file, or to the standard output, after which
// nothing is said.
func export(ctx context.Context, cmd *cobra.Command, m *manager.Manager, file string) (err error) {
	var e *manager.Exported
	if file == "-" {
		out := bufio.NewWriterSize(cmd.OutOrStdout(), 256<<10)
		if _, err := m.ExportLog(ctx, out); err != nil {
			return err
		}
		return out.Flush()
	}
	if err := durable.WriteStream(file, durable.PrivateFile, func(w io.Writer) (err error) {
		e, err = m.ExportLog(ctx, w)
		return err
	}); err != nil {
		return err
	}
	r := exportReport{file, e.Tenant, e.Log, e.Epoch, e.Entries, e.Size, e.LeftOut}
	left := ""
	if e.LeftOut > 0 {
		left = fmt.Sprintf("; left out, as no manager signed them: %d", e.LeftOut)
	}
	return done(cmd, r, "%s: %d entries, %d bytes, of log %s in epoch %d%s", file, e.Entries, e.Size, e.Log, e.Epoch, left)
}
