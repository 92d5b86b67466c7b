// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/manager"
)

// A restoreReport is what "bus restore" did, as --output json prints it.
type restoreReport struct {
	From         []string `json:"from"`
	Log          string   `json:"log"`
	Lost         int      `json:"lost"`
	Older        int      `json:"older"`
	Certificates int      `json:"certificates"`
	Epoch        uint64   `json:"epoch"`
	Salvaged     uint64   `json:"salvaged"`
	Aside        string   `json:"aside,omitempty"`
	Adopted      []string `json:"adopted,omitempty"`
	Unproven     []string `json:"unproven,omitempty"`
	Bad          []string `json:"bad,omitempty"`
}

// A restoring is what the flags of "bus restore" say.
type restoring struct {
	from     []string
	replicas []string // directories of replicas' snapshots
	issuer   string
	wait     time.Duration
}

func newBusRestore() *cobra.Command {
	var r restoring
	cmd := addCopyFlags(&cobra.Command{
		Use:   "restore",
		Short: "Get back what the bus has lost",
		Long: `Rebuilds a bus whose files are gone, were put back to an older state, cut or
damaged: from the snapshot that the manager of the data directory keeps, from exports,
and from whatever can still be read. Of each entry the newest counts, wherever it is;
what the bus has in a newer form stays. The epoch is raised, so that what is made from
then on is above all that was lost. Replicas serve meanwhile what they have.

The embedded bus is restored while "keyturn serve" is stopped; it gets a new log, and
the damaged files are set aside in bus/aside. Any other bus is restored in place.
Where "keyturn serve" runs, what replicas hold and the bus knows nothing of is taken
from them, too: they prove it by the managers' own signatures. So is what stands in the
directory that a host joined with, or a copy of it, where the data directory has its
group's key. How that is renewed is up to --issuer then.

A restore that was cut short is gone on with by the same command. Where nothing is
missing it does nothing.`,
		Example: "  keyturn bus restore --data /var/lib/keyturn\n" +
			"  keyturn bus restore --data /var/lib/keyturn --from keyturn.log",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if r.issuer != "" {
				if err := event.CheckName(r.issuer); err != nil {
					return usagef("--issuer: %w", err)
				}
			}
			report, err := r.run(cmd)
			if err != nil {
				return err
			}
			return report.print(cmd)
		},
	})
	f := cmd.Flags()
	f.StringArrayVar(&r.from, "from", nil, "an export, a directory of snapshots, or one that a host joined with; may be repeated (default: snapshot/ of the data directory)")
	f.StringVar(&r.issuer, "issuer", "", "who renews what replicas alone know (default: the default issuer)")
	f.DurationVar(&r.wait, "wait", 3*time.Minute, "how long replicas get to prove what they alone know")
	return cmd
}

// run restores the bus where it is.
func (r *restoring) run(cmd *cobra.Command) (*restoreReport, error) {
	data, err := dataOf(cmd)
	if err != nil {
		return nil, err
	}
	files, err := r.sources(data)
	if err != nil {
		return nil, err
	}
	dir := datadir.At(data)
	if data != "" && !dir.Exists() {
		return nil, fmt.Errorf("there is no keyturn instance in %s: put its identity.pem and groups/ back first, or say where it is with --data", data)
	}
	if data != "" && standsStill(dir) {
		if len(r.replicas) > 0 {
			return nil, fmt.Errorf("what the replica in %s holds is put on a bus that runs: restore it without that first, and start `keyturn serve`", r.replicas[0])
		}
		ctx, cancel := limited(cmd)
		defer cancel()
		return restoreEmbedded(ctx, cmd, data, files)
	}
	var report *restoreReport
	err = withBus(cmd, func(ctx context.Context, m *manager.Manager, conn bus.Conn) (err error) {
		report, err = r.inPlace(ctx, cmd, m, conn, data, files)
		return err
	})
	return report, err
}

// sources are the files to restore from: those that are named, or else the
// snapshots of the data directory. Directories of replicas are put into r.replicas.
func (r *restoring) sources(data string) ([]string, error) {
	from := r.from
	if len(from) == 0 && data != "" {
		from = []string{filepath.Join(data, datadir.Snapshot)}
	}
	var files []string
	for _, path := range from {
		fi, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("there is nothing to restore from: %w", err)
		}
		if !fi.IsDir() {
			files = append(files, path)
			continue
		}
		if dir := replicaSnapshot(path); dir != "" {
			r.replicas = append(r.replicas, dir)
			continue
		}
		kept, err := manager.SnapshotFiles(path)
		if err != nil {
			return nil, err
		}
		files = append(files, kept...)
	}
	if len(files)+len(r.replicas) == 0 {
		return nil, errors.New("there is nothing to restore from: name an export, a directory of snapshots, or a replica's, with --from")
	}
	return files, nil
}

// inPlace restores a bus that can be reached.
func (r *restoring) inPlace(ctx context.Context, cmd *cobra.Command, m *manager.Manager, conn bus.Conn, data string, files []string) (*restoreReport, error) {
	id := ""
	if c, ok := conn.(creator); ok {
		var err error
		if id, err = c.Create(ctx, ""); err != nil {
			return nil, fmt.Errorf("finding the log, or making it: %w", err)
		}
	}
	report := new(restoreReport)
	if len(files) > 0 {
		var err error
		if report, err = restore(ctx, m, files); err != nil {
			return nil, err
		}
	}
	for _, dir := range r.replicas {
		if err := r.adopt(ctx, cmd, m, data, dir, report); err != nil {
			return nil, err
		}
	}
	if report.Log = id; data != "" && id != "" {
		if err := keepLogID(cmd, id); err != nil {
			return nil, err
		}
	}
	wait, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	var err error
	report.Unproven, err = m.Reclaim(wait, r.issuer, func(id string, a manager.Adoption, err error) { report.took(cmd, id, a, err) })
	return report, err
}

// took notes what became of what a replica holds.
func (r *restoreReport) took(cmd *cobra.Command, id string, a manager.Adoption, err error) {
	switch {
	case err != nil:
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %v\n", err)
	case a == manager.Adopted || a == manager.Advanced:
		r.Adopted = append(r.Adopted, id)
	}
}

// restore puts back what archives have and a log has not.
func restore(ctx context.Context, m *manager.Manager, files []string) (*restoreReport, error) {
	plan, err := m.PlanRestoration(ctx, files)
	if err != nil {
		return nil, err
	}
	if err := m.RestoreLog(ctx, plan); err != nil {
		return nil, err
	}
	return newRestoreReport(plan), nil
}

func newRestoreReport(plan *manager.Restoration) *restoreReport {
	r := &restoreReport{From: plan.Files, Lost: plan.Lost, Older: plan.Older, Certificates: plan.Certificates, Epoch: plan.Epoch}
	if plan.Needed() {
		r.Epoch = plan.NextEpoch
	}
	for path, err := range plan.Bad {
		r.Bad = append(r.Bad, fmt.Sprintf("%s: %v", path, err))
	}
	return r
}

func (r *restoreReport) print(cmd *cobra.Command) error {
	for _, bad := range r.Bad {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: nothing of it can be used: %s\n", bad)
	}
	if asJSON, err := formatOf(cmd); err != nil || asJSON {
		return printJSON(cmd, r)
	}
	out := cmd.OutOrStdout()
	switch {
	case len(r.From) == 0:
	case r.Lost+r.Older == 0:
		fmt.Fprintf(out, "nothing is missing: the bus has all that is in %s\n", strings.Join(r.From, ", "))
	default:
		fmt.Fprintf(out, "the bus has %d entries again that it had lost, and %d in place of older ones: %s; the epoch is %d\n",
			r.Lost, r.Older, plural.Of(r.Certificates, "managed certificate"), r.Epoch)
	}
	if r.Aside != "" {
		fmt.Fprintf(out, "what was there before lies in %s: remove it when all is well\n", r.Aside)
	}
	if len(r.Adopted) > 0 {
		fmt.Fprintf(out, "managed again, as replicas hold them: %s\n", strings.Join(r.Adopted, ", "))
	}
	if len(r.Unproven) > 0 {
		fmt.Fprintf(out, "replicas report, and have not proven yet: %s: run this again, or make them again\n", strings.Join(r.Unproven, ", "))
	}
	return nil
}
