// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/manager"
)

// pauseDetail is since when, and why, nothing is renewed.
type pauseDetail struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
}

func pauseOf(p *event.Pause) *pauseDetail {
	if p == nil {
		return nil
	}
	return &pauseDetail{p.At, p.Reason}
}

func (p *pauseDetail) String() string {
	text := "paused since " + stamp(p.At)
	if p.Reason != "" {
		text += ": " + printable.Line(p.Reason)
	}
	return text
}

// A target is what a command is for: one certificate, or an issuer.
type target struct{ issuer string }

// addTo lets a command take an ID or --issuer.
func (t *target) addTo(cmd *cobra.Command) *cobra.Command {
	one := oneID(cmd).Args
	cmd.Args = func(cmd *cobra.Command, ids []string) error {
		switch {
		case t.issuer == "":
			return one(cmd, ids)
		case len(ids) > 0:
			return usagef("an ID and --issuer exclude each other")
		}
		if err := event.CheckName(t.issuer); err != nil {
			return usagef("--issuer: %w", err)
		}
		return nil
	}
	cmd.Flags().StringVar(&t.issuer, "issuer", "", "everything that this issuer is asked for")
	completeIssuerFlag(cmd)
	return cmd
}

func newCertPause() *cobra.Command {
	var t target
	var reason string
	cmd := t.addTo(&cobra.Command{
		Use:   "pause ID | pause --issuer ISSUER",
		Short: "Keep a certificate, or all of an issuer's, from being renewed",
		Long: `Keeps a certificate from being renewed, by whomever, until "keyturn cert resume":
it goes on to be served, and ends when it ends. --issuer keeps all managers from
asking that issuer for anything; no other issuer stands in for it. What is under
way is finished. It stands in "keyturn cert cat", "keyturn issuer ls" and "keyturn
cert renewable --all".`,
		Example: "  keyturn cert pause dSkmimj51P8 --reason 'is moved on Friday'\n  keyturn cert pause --issuer letsencrypt",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if t.issuer != "" {
				return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
					if err := m.PauseIssuer(ctx, t.issuer, reason); err != nil {
						return err
					}
					return done(cmd, map[string]any{"issuer": t.issuer, "paused": true}, "issuer %s is paused: nothing is asked of it", t.issuer)
				})
			}
			return onOne(cmd, ids[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				if err := m.Pause(ctx, c.ID, reason); err != nil {
					return err
				}
				return done(cmd, map[string]any{"id": c.ID, "paused": true}, "%s is paused: nothing renews it", c.ID)
			})
		},
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who wonder; without it, what is paused keeps its reason")
	return cmd
}

func newCertResume() *cobra.Command {
	var t target
	return t.addTo(&cobra.Command{
		Use:   "resume ID | resume --issuer ISSUER",
		Short: "End a pause",
		Long: `Ends what "keyturn cert pause" began. What became due meanwhile is renewed by
whoever runs, what ends soonest first.`,
		Example: "  keyturn cert resume dSkmimj51P8\n  keyturn cert resume --issuer letsencrypt",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if t.issuer != "" {
				return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
					if err := m.ResumeIssuer(ctx, t.issuer, ""); err != nil {
						return err
					}
					return done(cmd, map[string]any{"issuer": t.issuer, "paused": false}, "issuer %s is not paused", t.issuer)
				})
			}
			return onOne(cmd, ids[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				if err := m.Resume(ctx, c.ID, ""); err != nil {
					return err
				}
				return done(cmd, map[string]any{"id": c.ID, "paused": false}, "%s is not paused", c.ID)
			})
		},
	})
}
