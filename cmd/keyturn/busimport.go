// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/manager"
)

// An importReport is what "bus import" did, as --output json prints it.
type importReport struct {
	File         string `json:"file"`
	Log          string `json:"log"`
	From         string `json:"from"`
	Written      int    `json:"written"`
	Present      int    `json:"present"`
	Certificates int    `json:"certificates"`
}

func newBusImport() *cobra.Command {
	return addCopyFlags(&cobra.Command{
		Use:   "import FILE",
		Short: "Put what bus export wrote on an empty bus",
		Long: `Verifies the file, makes the log where it is not there yet, and puts every entry on
it as it is. The bus may be of another engine: so a fleet moves. Replicas serve
meanwhile what they have, and when they are told of the new bus they find there
what they had.

The log has to be empty: no "keyturn serve" was started on it. An import that was cut
short is gone on with by the same command. In a data directory whose bus.url names
the new bus, it also writes down which log that is.`,
		Example: "  keyturn bus import keyturn.log --data /var/lib/keyturn\n" +
			"  keyturn bus import keyturn.log --bus dynamodb://keyturn --identity identity.pem",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return onBus(cmd, func(ctx context.Context, m *manager.Manager, made madeLog) error {
				return importLog(ctx, cmd, m, made, args[0])
			})
		},
	})
}

func importLog(ctx context.Context, cmd *cobra.Command, m *manager.Manager, made madeLog, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("opening the archive: %w", err)
	}
	defer f.Close()
	id, err := made(ctx)
	if err != nil {
		return err
	}
	result, err := m.ImportLog(ctx, f)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := keepLogID(cmd, id); err != nil {
		return err
	}
	r := importReport{file, id, result.Log, result.Written, result.Present, result.Certificates}
	return done(cmd, r, "%s: %d entries are written to log %s, and %d were there; it has %s", file, r.Written, id, r.Present,
		plural.Of(r.Certificates, "managed certificate"))
}

// makeLog makes a tenant's log where there is none.
func makeLog(ctx context.Context, conn bus.Conn) (id string, err error) {
	c, ok := conn.(creator)
	if !ok {
		return "", fmt.Errorf("this bus cannot make a log")
	}
	if id, err = c.Create(ctx, ""); err != nil {
		return "", fmt.Errorf("making the log: %w", err)
	}
	return id, nil
}

// keepLogID writes down in the data directory, if there is one, which log its bus
// has now.
func keepLogID(cmd *cobra.Command, id string) error {
	data, err := dataOf(cmd)
	if err != nil || data == "" {
		return err
	}
	if err := datadir.At(data).SetLogID(id); err != nil {
		return fmt.Errorf("writing down in %s which log its bus has: %w", data, err)
	}
	return nil
}
