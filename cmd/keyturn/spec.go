// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/manager"
	"github.com/keyturn/keyturn/solver"
)

// A spec is what the flags of commands that begin the management of a certificate
// say of it, as it was typed.
type spec struct {
	group, key, lifetime, renewBefore string
	challenge, profile                string
	issuers                           []string
	force                             bool
}

// addFlags adds those flags that every such command has.
func (s *spec) addFlags(cmd *cobra.Command) {
	s.addIssuerFlags(cmd, "the configuration's", "the issuer's")
	f := cmd.Flags()
	f.StringVar(&s.renewBefore, "renew-before", "", "renew this long before the end: 30d, 720h or 33% (default: a third of the lifetime, half under ten days)")
	f.StringVar(&s.group, "group", manager.DefaultGroup, "group of replicas that get it")
	f.BoolVar(&s.force, "force", false, "even if these names are managed already")
	completeGroupFlag(cmd)
}

// addIssuerFlags adds those that say whom a certificate is from, and what that is
// asked for. The words say what holds without them.
func (s *spec) addIssuerFlags(cmd *cobra.Command, issuer, others string) {
	f := cmd.Flags()
	f.StringSliceVar(&s.issuers, "issuer", nil, "issuer, by its name in the shared configuration; more, after commas, stand in for it after failures (default: "+issuer+")")
	f.StringVar(&s.challenge, "challenge", "", "how an ACME CA is shown who controls the names, renewals included: "+strings.Join(solver.Types(), ", ")+" (default: "+others+")")
	f.StringVar(&s.profile, "profile", "", "kind of certificate, by an ACME CA's name for it, such as shortlived (default: "+others+")")
	completeFlag(cmd, "challenge", solver.Types()...)
	completeIssuerFlag(cmd)
}

// request returns what the flags ask for; the error is one of usage.
func (s *spec) request() (r manager.Request, err error) {
	r = manager.Request{Group: s.group, Challenge: s.challenge, Profile: s.profile, Force: s.force}
	if s.key != "" {
		if r.Key, err = issuer.ParseKeyType(s.key); err != nil {
			return r, usagef("--key: %w", err)
		}
	}
	if err := s.times(&r); err != nil {
		return r, err
	}
	if err := event.CheckName(r.Group); err != nil {
		return r, usagef("--group: %w", err)
	}
	return r, s.issuer(&r)
}

func (s *spec) times(r *manager.Request) (err error) {
	if s.lifetime != "" {
		d, err := config.ParseDuration(s.lifetime)
		if err != nil {
			return usagef("--lifetime: %w", err)
		}
		if r.Lifetime = time.Duration(d); r.Lifetime < manager.MinLifetime {
			return usagef("--lifetime is %v: at least %v are needed", r.Lifetime, manager.MinLifetime)
		}
		if before, err := config.ParseDuration(s.renewBefore); err == nil && before >= d {
			return usagef("--renew-before %s is not shorter than --lifetime %s: the certificate would always be due", before, d)
		}
	}
	if r.RenewBefore, err = config.ParseRenewBefore(s.renewBefore); err != nil {
		return usagef("--renew-before: %w", err)
	}
	return nil
}

// issuer puts the first of the issuers, and those that stand in, into a request.
func (s *spec) issuer(r *manager.Request) error {
	if err := s.checkIssuer(); err != nil {
		return err
	}
	if len(s.issuers) > 0 {
		r.Issuer, r.Fallbacks = s.issuers[0], s.issuers[1:]
	}
	return nil
}

// checkIssuer checks what addIssuerFlags has.
func (s *spec) checkIssuer() error {
	if s.challenge != "" && !slices.Contains(solver.Types(), s.challenge) {
		return usagef("--challenge is %q: %s are known", s.challenge, strings.Join(solver.Types(), ", "))
	}
	for i, name := range s.issuers {
		if err := event.CheckName(name); err != nil {
			return usagef("--issuer: %w", err)
		}
		if slices.Contains(s.issuers[:i], name) {
			return usagef("--issuer names %s twice: name each once, in the order in which they are asked", name)
		}
	}
	if n := len(s.issuers); n > event.MaxIssuers {
		return usagef("--issuer names %d; a certificate has at most %d issuers", n, event.MaxIssuers)
	}
	return nil
}

// provable refuses a challenge by which one of the names can never be shown.
func provable(r manager.Request) error {
	for _, name := range r.Names {
		_, err := netip.ParseAddr(name)
		switch {
		case strings.HasPrefix(name, "*.") && r.Challenge != "" && r.Challenge != solver.DNS01:
			return usagef("--challenge is %s: a wildcard, %s, is shown only by %s", r.Challenge, name, solver.DNS01)
		case err == nil && r.Challenge == solver.DNS01:
			return usagef("--challenge is %s: an IP address, %s, is shown only by %s or %s", r.Challenge, name, solver.HTTP01, solver.TLSALPN01)
		}
	}
	return nil
}

// completeIssuerFlag has the shell offer the issuers for --issuer.
func completeIssuerFlag(cmd *cobra.Command) {
	// The only error is a flag that does not exist.
	_ = cmd.RegisterFlagCompletionFunc("issuer", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return completeIssuers(cmd, nil, typed)
	})
}

func completeIssuers(cmd *cobra.Command, got []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	if len(got) == 0 {
		_ = withManager(cmd, func(ctx context.Context, m *manager.Manager) error { // completion has no place for errors
			list, err := m.Issuers(ctx)
			for _, i := range list {
				names = append(names, i.Name)
			}
			return err
		})
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
