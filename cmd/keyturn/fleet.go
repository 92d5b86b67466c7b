// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/manager"
)

// printFleet prints JSON, or tables: what is issued and served, the replicas,
// the groups; of one certificate, replica by replica.
func printFleet(cmd *cobra.Command, f *manager.Fleet, d *bus.Durability, one bool) error {
	if asJSON, err := formatOf(cmd); err != nil || asJSON {
		return printJSON(cmd, struct {
			*manager.Fleet
			Durability *bus.Durability `json:"durability,omitempty"`
		}{f, d})
	}
	out := cmd.OutOrStdout()
	if one {
		return printOne(out, f)
	}
	return errors.Join(
		table(out, "Certificate\tGroup\tNames\tGeneration\tDelivered\tServed\tExpires\tDue", f.Certificates, certificateLine),
		table(out, "\nReplica\tHost\tGroup\tState\tReported\tOutage budget", f.Members, memberLine),
		table(out, "\nGroup\tCertificates\tReplicas\tOutage budget\tBeacon", f.Groups, groupLine),
	)
}

// table prints a heading and a line for each, and nothing for none but the
// heading.
func table[T any](out io.Writer, heading string, list []T, line func(T) string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, heading)
	for _, v := range list {
		fmt.Fprintln(w, line(v))
	}
	return w.Flush()
}

func certificateLine(c manager.CertificateStatus) string {
	due := stamp(c.Due)
	if c.Mark != "" {
		due = "now: " + c.Mark
	}
	if c.Failure != "" {
		due += " (the last attempt failed)"
	}
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%d/%d\t%d/%d\t%s\t%s", c.ID, c.Group, strings.Join(c.Names, ","), c.Generation,
		c.Delivered, c.Members, c.Served, c.Members, stamp(c.NotAfter), due)
}

func memberLine(m manager.MemberStatus) string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", m.ID, m.Name, m.Group, memberState(m), ago(m.Seen), until(m.Budget))
}

// memberState says in a few words how a replica is, the worst first.
func memberState(m manager.MemberStatus) string {
	var state []string
	switch {
	case !m.Granted:
		state = append(state, "waits for the group's key")
	case m.Seen.IsZero():
		state = append(state, "never reported")
	case m.Silent:
		state = append(state, "silent")
	case !m.Following:
		state = append(state, strings.TrimSuffix("does not follow the bus: "+m.Error, ": "))
	}
	if m.Differs {
		state = append(state, "differs from what the managers say")
	}
	if skew := m.Skew.Duration().Abs(); skew > time.Minute {
		state = append(state, fmt.Sprintf("its clock is wrong by %v", skew.Round(time.Second)))
	}
	if len(m.Unknown) > 0 {
		state = append(state, "holds what the bus does not know: "+strings.Join(m.Unknown, " "))
	}
	if len(state) == 0 {
		return "ok"
	}
	return strings.Join(state, "; ")
}

func groupLine(g manager.GroupStatus) string {
	return fmt.Sprintf("%s\t%d\t%d\t%s\t%s", g.Name, g.Certificates, g.Members, until(g.Budget), ago(g.Beacon))
}

// printOne prints a certificate and what each replica has of it.
func printOne(out io.Writer, f *manager.Fleet) error {
	for _, c := range f.Certificates {
		fmt.Fprintf(out, "%s  %s  group %s\n", c.ID, strings.Join(c.Names, ","), c.Group)
		fmt.Fprintf(out, "issued %s: generation %d, expires %s, delivered %d/%d, served %d/%d\n",
			stamp(c.Issued), c.Generation, stamp(c.NotAfter), c.Delivered, c.Members, c.Served, c.Members)
		if c.Failure != "" {
			fmt.Fprintf(out, "the last attempt failed: %s\n", c.Failure)
		}
		fmt.Fprintln(out)
		if err := table(out, "Replica\tHost\tState\tGeneration\tReceived\tServed since\tLag\tReported\tWhy", c.Replicas, replicaLine); err != nil {
			return err
		}
	}
	return nil
}

func replicaLine(r manager.ReplicaStatus) string {
	lag := "-"
	if !r.Received.IsZero() {
		lag = r.Lag.Duration().Round(time.Millisecond).String()
	}
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s", r.Member, r.Name, strings.ReplaceAll(string(r.State), "_", " "), r.Generation,
		stamp(r.Received), stamp(r.Served), lag, ago(r.Seen), cmp.Or(strings.ReplaceAll(r.Error, "\n", "; "), "-"))
}

// ago prints how long ago a time was, coarsely; "never" for none.
func ago(t time.Time) string {
	switch d := time.Since(t); {
	case t.IsZero():
		return "never"
	case d < 2*time.Second:
		return "now"
	default:
		return coarse(d) + " ago"
	}
}

// until prints how long it is until a time, coarsely; "-" for none.
func until(t time.Time) string {
	switch d := time.Until(t); {
	case t.IsZero():
		return "-"
	case d <= 0:
		return "over"
	default:
		return coarse(d)
	}
}

// coarse prints a length of time in its largest unit.
func coarse(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", int(d/(24*time.Hour)))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%dh", int(d/time.Hour))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%dm", int(d/time.Minute))
	}
	return fmt.Sprintf("%ds", int(d/time.Second))
}
