// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/manager"
)

func newStatus() *cobra.Command {
	var q manager.Query
	var wait bool
	cmd := addConnectFlags(&cobra.Command{
		Use:   "status [ID]",
		Short: "Show what is issued, delivered and served, and by whom not",
		Long: `Shows how far each managed certificate got: issued, delivered to the group's
replicas, and served by them, each as the replicas themselves report it; then the
replicas, and for each group how long it would live on if nothing came any more.
With an ID, that certificate, replica by replica.

--wait returns when every live replica of the group serves the newest generation;
after --timeout it exits 1 and names those that do not, and why. A host that
joined and has never reported is named, and not waited for.`,
		Example: "  keyturn status\n  keyturn status dSkmimj51P8 --wait --timeout 30s",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, ids []string) error {
			if wait && len(ids) == 0 {
				return usagef("--wait needs an ID")
			}
			if q.Group != "" {
				if err := event.CheckName(q.Group); err != nil {
					return usagef("--group: %w", err)
				}
			}
			return withBus(cmd, func(ctx context.Context, m *manager.Manager, conn bus.Conn) error {
				if q.Group != "" {
					if _, err := findGroup(ctx, m, q.Group); err != nil {
						return err
					}
				}
				if len(ids) == 1 {
					c, err := m.Find(ctx, ids[0])
					if err != nil {
						return err
					}
					q.ID = c.ID
					if wait {
						if err := waitServed(ctx, cmd, m, c); err != nil {
							return err
						}
					}
				}
				fleet, err := m.Fleet(ctx, q)
				if err != nil {
					return err
				}
				d, err := readDurability(ctx, conn)
				if err != nil {
					return err
				}
				noteReduced(cmd, d)
				return printFleet(cmd, fleet, d, q.ID != "")
			})
		},
	})
	cmd.Flags().StringVar(&q.Group, "group", "", "only this group")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the whole group serves the newest generation")
	cmd.ValidArgsFunction = completeIDs
	completeGroupFlag(cmd)
	return cmd
}

// addWaitFlag adds --wait=served to a command that publishes a generation.
func addWaitFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().String("wait", "", "\"served\": return when the whole group serves it, or exit 1 after --timeout and say who does not")
	completeFlag(cmd, "wait", "served")
	return cmd
}

// wantsWait reports whether --wait=served is given.
func wantsWait(cmd *cobra.Command) (bool, error) {
	switch w, _ := cmd.Flags().GetString("wait"); w {
	case "":
		return false, nil
	case "served":
		return true, nil
	default:
		return false, usagef("--wait is %q: served is known", w)
	}
}

// waitIfAsked waits for what --wait says.
func waitIfAsked(ctx context.Context, cmd *cobra.Command, m *manager.Manager, c *manager.Managed) error {
	wait, err := wantsWait(cmd)
	if err != nil || !wait {
		return err
	}
	return waitServed(ctx, cmd, m, c)
}

// waitServed returns when the group serves the newest generation of c.
func waitServed(ctx context.Context, cmd *cobra.Command, m *manager.Manager, c *manager.Managed) error {
	p := newProgress(cmd)
	defer p.end()
	unreported, err := m.Wait(ctx, c.ID, c.Version, func(served, of int, missing []string) {
		waiting := "for a replica of its group to report"
		if of > 0 {
			waiting = "for " + strings.Join(missing, ", ")
		}
		p.say(c.ID, fmt.Sprintf("generation %d is served by %d of %d; waiting %s", c.Generation, served, of, waiting))
	})
	for _, r := range unreported {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s (%s) was not waited for: it %s\n", r.Name, r.Member, r.Why)
	}
	var not *manager.NotServedError
	if err != nil && !errors.As(err, &not) {
		return fmt.Errorf("waiting until generation %d of %s is served: %w", c.Generation, c.ID, err)
	}
	return err
}

// waitGroup returns when a group serves the newest generation of all of its
// certificates.
func waitGroup(ctx context.Context, cmd *cobra.Command, m *manager.Manager, name string) error {
	list, err := m.List(ctx)
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.Spec.Group == name {
			if err := waitServed(ctx, cmd, m, c); err != nil {
				return err
			}
		}
	}
	return nil
}
