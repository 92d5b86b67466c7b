// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/manager"
)

// renewals are what "cert renew" is to renew, and why.
type renewals struct {
	group, issuer, reason string
	all                   bool
}

func newCertRenew() *cobra.Command {
	var r renewals
	cmd := oneID(&cobra.Command{
		Use:   "renew ID | renew --group GROUP | renew --all --issuer ISSUER",
		Short: "Renew managed certificates now, whether they are due or not",
		Long: `Makes the next generation now, whether it is due or not: the same id, names,
issuer and key type, a new key. Returns when the generation is on the bus. If
another manager is at it, waits for that one's generation.

--group renews all certificates of a group. They are marked first, so that a
running manager goes on where this command is interrupted.

--all --issuer makes everything anew that an issuer signed, as when a CA has to
revoke it: what ends soonest goes first, some at once, and no faster than the
issuer's limits allow. All of it is marked first, and every manager that runs helps;
it goes on without this command when that is interrupted or --timeout is over.
"keyturn cert pause --issuer" stops it, and resume goes on.`,
		Example: "  keyturn cert renew dSkmimj51P8 --wait served\n  keyturn cert renew --group web --reason compromised\n" +
			"  keyturn cert renew --all --issuer letsencrypt --timeout 24h",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if r.reason != event.ReasonRekey && r.reason != event.ReasonCompromised {
				return usagef("--reason is %q: %s and %s are known", r.reason, event.ReasonRekey, event.ReasonCompromised)
			}
			wait, err := wantsWait(cmd)
			switch {
			case err != nil:
				return err
			case r.all && wait:
				return usagef("--wait is for an ID or a --group: --all waits until everything is made")
			case r.all:
				return renewIssuer(cmd, r.issuer, r.reason)
			case r.group != "":
				return renewGroup(cmd, r.group, r.reason)
			}
			return onOne(cmd, ids[0], func(ctx context.Context, m *manager.Manager, c *manager.Managed) error {
				c, err := m.Renew(ctx, c.ID, r.reason)
				if err != nil {
					return err
				}
				return errors.Join(done(cmd, rowOf(c), "%s is renewed: %s", c.ID, made(c)), waitIfAsked(ctx, cmd, m, c))
			})
		},
	})
	r.addTo(cmd)
	return addWaitFlag(cmd)
}

func (r *renewals) addTo(cmd *cobra.Command) {
	one := cmd.Args
	cmd.Args = func(cmd *cobra.Command, ids []string) error {
		several := r.group != "" || r.all || r.issuer != ""
		switch {
		case !several:
			return one(cmd, ids)
		case len(ids) > 0:
			return usagef("an ID excludes --group, --all and --issuer")
		case r.group != "" && (r.all || r.issuer != ""):
			return usagef("--group excludes --all and --issuer")
		case r.group == "" && (!r.all || r.issuer == ""):
			return usagef("--all and --issuer ISSUER go together: everything that it signed")
		}
		flag, name := "--group", r.group
		if r.all {
			flag, name = "--issuer", r.issuer
		}
		if err := event.CheckName(name); err != nil {
			return usagef("%s: %w", flag, err)
		}
		return nil
	}
	f := cmd.Flags()
	f.StringVar(&r.group, "group", "", "all certificates of this group")
	f.BoolVar(&r.all, "all", false, "everything that --issuer signed")
	f.StringVar(&r.issuer, "issuer", "", "with --all: whose certificates")
	f.StringVar(&r.reason, "reason", event.ReasonRekey, "why, for the history: "+event.ReasonRekey+" or "+event.ReasonCompromised)
	completeFlag(cmd, "reason", event.ReasonRekey, event.ReasonCompromised)
	completeGroupFlag(cmd)
	completeIssuerFlag(cmd)
}

// renewGroup marks the certificates of a group and makes what is marked.
func renewGroup(cmd *cobra.Command, name, reason string) error {
	return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
		n, err := m.RenewGroup(ctx, name, reason)
		if n == 0 && err != nil {
			return err
		}
		if err != nil {
			return fmt.Errorf("%s of group %s marked, but not all made anew; whoever runs tries again: %w", plural.Of(n, "certificate"), name, err)
		}
		errs := []error{done(cmd, map[string]any{"group": name, "renewed": n}, "%s of group %s renewed", plural.Of(n, "certificate"), name)}
		if wait, _ := wantsWait(cmd); wait { // checked already
			errs = append(errs, waitGroup(ctx, cmd, m, name))
		}
		return errors.Join(errs...)
	})
}

// massRow is how far a mass renewal is.
type massRow struct {
	Issuer  string `json:"issuer"`
	Marked  int    `json:"marked"`
	Renewed int    `json:"renewed"`
	Failed  int    `json:"failed"` // at the last attempt; they are tried again
}

// renewIssuer marks what an issuer signed, works on it as every manager that runs
// does, and watches until all of it is made anew.
func renewIssuer(cmd *cobra.Command, issuer, reason string) error {
	return withManager(cmd, func(ctx context.Context, m *manager.Manager) error {
		if err := knownIssuer(ctx, m, issuer); err != nil {
			return err
		}
		ids, marking := m.MarkIssuer(ctx, issuer, reason)
		r := massRow{Issuer: issuer, Marked: len(ids)}
		p := newProgress(cmd)
		defer p.end()
		defer work(ctx, m, ids)()
		err := m.WatchMarked(ctx, ids, func(done, failed, of int) {
			r.Renewed, r.Failed = done, failed
			said := fmt.Sprintf("%d of %s made anew", done, plural.Of(of, "certificate"))
			if failed > 0 {
				said += fmt.Sprintf("; the last attempt at %d of the others failed", failed)
			}
			p.say(issuer, said)
		})
		if err != nil {
			err = fmt.Errorf("%w; the others stay marked, and whoever runs goes on: `keyturn renew --due` where nobody does, `keyturn cert renewable --all` says what each waits for", err)
		}
		return errors.Join(marking, err, done(cmd, r, "%d of %s of issuer %s made anew", r.Renewed, plural.Of(r.Marked, "certificate"), issuer))
	})
}

// work makes one pass over some certificates in the background; what fails is noted
// with each. stop ends it.
func work(ctx context.Context, m *manager.Manager, ids []string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = m.RenewDue(ctx, manager.DueOptions{Only: ids}) // who watches them sees what came of it
	}()
	return func() {
		cancel()
		<-done
	}
}

// knownIssuer returns an error unless the shared configuration names the issuer,
// so that a mistyped one is not taken for one without certificates.
func knownIssuer(ctx context.Context, m *manager.Manager, name string) error {
	list, err := m.Issuers(ctx)
	if slices.ContainsFunc(list, func(i manager.IssuerInfo) bool { return i.Name == name }) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("there is no issuer %q in the shared configuration: `keyturn issuer ls` lists them", name)
}
