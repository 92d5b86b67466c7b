// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/manager"
)

// A busReport is how the bus is, as --output json prints it.
type busReport struct {
	URL string `json:"url"`
	*bus.Durability
	Epoch uint64 `json:"epoch"`
	// Certificates are managed ones, and Entries all that stand on the log, by the first
	// part of their keys; none where the bus cannot count them.
	Certificates int               `json:"certificates"`
	Groups       int               `json:"groups"`
	Members      int               `json:"members"`
	Entries      map[string]uint64 `json:"entries,omitempty"`
	// Known is the log id that the data directory knows, where there is one: another
	// one than Log is a log that was replaced.
	Known     string     `json:"known_log,omitempty"`
	Replaced  bool       `json:"replaced"`
	WentBack  bool       `json:"went_back"` // a replica was further than the log is
	Followers []follower `json:"followers"`
}

// counted are the first parts of keys.
var counted = []string{
	"conf", "group", event.StateScope, event.NamesScope, event.MemberScope, event.TokenScope, event.JoinScope,
	event.ChallengeScope, event.BudgetScope,
}

// A follower is a replica that follows the bus.
type follower struct {
	Member   string          `json:"member"`
	Host     string          `json:"host"`
	Group    string          `json:"group"`
	State    string          `json:"state"`
	Position string          `json:"position,omitempty"`
	Behind   int             `json:"behind"` // certificates whose newest generation it lacks
	Lag      manager.Seconds `json:"lag_seconds"`
	Seen     time.Time       `json:"seen,omitzero"`
}

func newBusStatus() *cobra.Command {
	return addConnectFlags(&cobra.Command{
		Use:   "status",
		Short: "Show how the bus is: its servers, what it holds, who follows it",
		Long: `Shows what engine the bus is, what it holds, on how many servers, whether these
have an entry on the disk before they acknowledge it, and how far each replica has
followed: how many certificates it is behind, and how long the newest of those that
it has took to reach it. What falls short of what is promised is shown as reduced
durability, with what to do.

Entries are counted by the first part of their keys: "state" is what managers know of
a certificate, also of one that was removed, "names" that nobody else manages these
names, and "group" its copy for replicas; "member", "token" and "join" are of hosts,
"conf" is the configuration, the groups and what CAs keep, "challenge" what replicas
answer CAs, and "budget" what was asked of issuers.

It exits 1 only if the bus cannot be asked.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withBus(cmd, func(ctx context.Context, m *manager.Manager, conn bus.Conn) error {
				r, err := reportBus(ctx, cmd, m, conn)
				if err != nil {
					return err
				}
				if asJSON, err := formatOf(cmd); err != nil || asJSON {
					return printJSON(cmd, r)
				}
				return r.print(cmd.OutOrStdout())
			})
		},
	})
}

func reportBus(ctx context.Context, cmd *cobra.Command, m *manager.Manager, conn bus.Conn) (*busReport, error) {
	d, err := readDurability(ctx, conn)
	if err != nil {
		return nil, err
	}
	r := &busReport{Durability: d, URL: busURL(cmd), Followers: []follower{}}
	if data, err := dataOf(cmd); err == nil && data != "" {
		if r.URL, err = bus.ReadURL(data); err != nil {
			return nil, err
		}
		if r.Known, err = datadir.At(data).LogID(); err != nil {
			return nil, err
		}
	}
	r.URL = jetstream.Redact(r.URL)
	r.Replaced = r.Known != "" && r.Known != r.Log
	if r.Epoch, err = m.Epoch(ctx); err != nil {
		return nil, err
	}
	fleet, err := m.Fleet(ctx, manager.Query{})
	if err != nil {
		return nil, err
	}
	r.Certificates, r.Groups, r.Members = len(fleet.Certificates), len(fleet.Groups), len(fleet.Members)
	if c, ok := conn.(bus.Counter); ok {
		if r.Entries, err = c.Count(ctx, counted); err != nil {
			return nil, err
		}
	}
	for _, member := range fleet.Members {
		f := follow(fleet, member)
		at, err := bus.ParsePosition(f.Position)
		r.WentBack = r.WentBack || err == nil && d.Head > 0 && at.Log == d.Log && at.Seq > d.Head
		r.Followers = append(r.Followers, f)
	}
	return r, nil
}

// follow says how far a member has followed.
func follow(fleet *manager.Fleet, m manager.MemberStatus) follower {
	f := follower{Member: m.ID, Host: m.Name, Group: m.Group, State: memberState(m), Position: m.Position, Seen: m.Seen}
	for _, c := range fleet.Certificates {
		i := slices.IndexFunc(c.Replicas, func(r manager.ReplicaStatus) bool { return r.Member == m.ID })
		if i < 0 || c.Generation == 0 {
			continue
		}
		if r := c.Replicas[i]; r.Version.Less(c.Version) {
			f.Behind++
		} else {
			f.Lag = max(f.Lag, r.Lag)
		}
	}
	return f
}

func (r *busReport) print(out io.Writer) error {
	engine := r.Engine
	if r.Cluster != "" {
		engine += ", cluster " + r.Cluster
	}
	fmt.Fprintf(out, "%s at %s\n", engine, r.URL)
	fmt.Fprintf(out, "log %s, epoch %d", r.Log, r.Epoch)
	if r.Head > 0 {
		fmt.Fprintf(out, ", head %d", r.Head)
	}
	fmt.Fprintln(out)
	fmt.Fprintf(out, "%s, %s, %s\n", plural.Of(r.Certificates, "managed certificate"), plural.Of(r.Groups, "group"), plural.Of(r.Members, "member"))
	if len(r.Entries) > 0 {
		fmt.Fprintf(out, "entries: %s\n", countsOf(r.Entries))
	}
	if r.Replaced {
		fmt.Fprintf(out, "REPLACED: the data directory knows log %s: restore it\n", r.Known)
	}
	if r.WentBack {
		fmt.Fprintln(out, "WENT BACK: a replica was further than the log is: who put an older copy back?")
	}
	if len(r.Reduced) == 0 {
		fmt.Fprintln(out, "durability as promised")
	}
	for _, d := range r.Reduced {
		fmt.Fprintln(out, d)
	}
	var errs []error
	if len(r.Servers) > 0 {
		errs = append(errs, table(out, "\nServer\tOn disk\tEntries", r.Servers, func(s bus.Server) string {
			state := "all"
			if !s.Current {
				state = fmt.Sprintf("%d behind, or gone", s.Lag)
			}
			return fmt.Sprintf("%s\t%s\t%s", s.Name, s.Sync, state)
		}))
	}
	if len(r.Streams) > 0 {
		errs = append(errs, table(out, "\nStream\tHolds\tEntries\tBytes\tCopies", r.Streams, func(s bus.Stream) string {
			return fmt.Sprintf("%s\t%s\t%d\t%d\t%d/%d", s.Name, s.What, s.Entries, s.Bytes, s.Current, s.Replicas)
		}))
	}
	return errors.Join(append(errs, table(out, "\nReplica\tHost\tGroup\tState\tBehind\tLag\tReported", r.Followers, func(f follower) string {
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%d\t%s\t%s", f.Member, f.Host, f.Group, f.State, f.Behind,
			f.Lag.Duration().Round(time.Millisecond), ago(f.Seen))
	}))...)
}
