// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/names"
	"github.com/keyturn/keyturn/internal/printable"
	"github.com/keyturn/keyturn/issuer"
)

// A plan is what the fields of a Source come to. It does not change.
type plan struct {
	name  string   // the normal form of CommonName; "" if there is none
	every []string // of every certificate: CommonName first, then Names, in normal form, each once

	timeout  time.Duration
	maxNames int
	log      *slog.Logger
}

// own reports whether a name is one of every certificate.
func (p *plan) own(name string) bool { return slices.Contains(p.every, name) }

// sans returns the names of a certificate for name: a new slice each time.
func (p *plan) sans(name string) []string {
	sans := []string{name}
	for _, n := range p.every {
		if n != name {
			sans = append(sans, n)
		}
	}
	return sans
}

// prepare checks the fields, once.
func (s *Source) prepare() (*plan, error) {
	s.setup.Do(func() {
		p, err := s.newPlan()
		if err != nil {
			s.wrong = fmt.Errorf("the configuration: %w", err)
			return
		}
		s.gate.atOnce = cmp.Or(s.MaxAtOnce, DefaultMaxAtOnce)
		s.gate.perMinute = cmp.Or(s.MaxPerMinute, DefaultMaxPerMinute)
		s.table.start(p)
		s.plan = p
	})
	return s.plan, s.wrong
}

func (s *Source) newPlan() (*plan, error) {
	p := &plan{
		timeout:  cmp.Or(s.Timeout, DefaultTimeout),
		maxNames: cmp.Or(s.MaxNames, DefaultMaxNames),
		log:      s.Logger,
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	switch {
	case s.Issuer == nil:
		return nil, errors.New("there is no Issuer: set the one that signs")
	case s.CommonName == "" && s.Allow == nil && len(s.Names) == 0:
		return nil, errors.New("there is neither a CommonName nor an Allow: nothing can be issued; set one of them")
	case min(s.RenewBefore, s.Lifetime, s.Timeout) < 0:
		return nil, errors.New("RenewBefore, Lifetime and Timeout cannot be negative")
	case min(s.MaxAtOnce, s.MaxPerMinute, s.MaxNames) < 0:
		return nil, errors.New("MaxAtOnce, MaxPerMinute and MaxNames cannot be negative")
	}
	if _, err := issuer.ParseKeyType(string(s.KeyType)); err != nil {
		return nil, err
	}
	return p, s.readNames(p)
}

func (s *Source) readNames(p *plan) (err error) {
	given := s.Names
	if s.CommonName != "" {
		if p.name, err = normal(s.CommonName); err != nil {
			return fmt.Errorf("CommonName: %w", err)
		}
		if strings.HasPrefix(p.name, "*") {
			return fmt.Errorf("CommonName: %s is a wildcard, not a name; give it in Names", p.name)
		}
		given = append([]string{p.name}, given...)
	}
	for _, name := range given {
		if name, err = normal(name); err != nil {
			return fmt.Errorf("the name in every certificate: %w", err)
		}
		if !p.own(name) {
			p.every = append(p.every, name)
		}
	}
	if n := len(p.every); n >= names.MaxNames {
		return fmt.Errorf("every certificate would have %d names, and the one it is for; %d fit", n, names.MaxNames)
	}
	if len(p.every) == 0 {
		return nil
	}
	// A request made on trial finds what else is wrong, such as in a URI.
	key, err := issuer.Ed25519.Generate()
	if err != nil {
		return err
	}
	_, err = issuer.NewRequest(key, p.every)
	return err
}

// normal returns the normal form of a name that the configuration gives. That of a
// URI is how it is written.
func normal(name string) (string, error) {
	if strings.Contains(name, "://") {
		return name, nil
	}
	return names.Normalize(name)
}

func isAddr(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

// allow asks whether a certificate may be issued for a name.
func (s *Source) allow(ctx context.Context, name string) error {
	if s.plan.own(name) {
		return nil
	}
	if s.Allow == nil {
		return errors.New("there is no Allow, so that CommonName and Names alone are allowed")
	}
	ctx, cancel := context.WithTimeout(ctx, s.plan.timeout)
	defer cancel()
	return s.Allow(ctx, name)
}

// refused returns the error for a name that nothing is issued for, and logs it.
func (s *Source) refused(name string, err error) error {
	err = fmt.Errorf("%w: %.253q: %w", ErrNotAllowed, name, err)
	s.complain("a name was refused", name, err)
	return err
}

// complain logs what clients can bring about as often as they like.
func (s *Source) complain(message, name string, err error) {
	if unsaid, ok := s.muted.speak(name, time.Now()); ok {
		s.plan.log.Warn(message, "name", shown(name), "error", err, "unsaid", unsaid)
	}
}

// shown is a name, which can hold anything, as the log has it.
func shown(name string) string { return printable.Start(name, maxShown) }

const maxShown = 253 // RFC 1035 section 2.3.4, as text
