// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/names"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/solver"
)

// MinLifetime is the shortest lifetime that may be asked for.
const MinLifetime = 4 * time.Second

// A Request says what certificate to make. Names is required; what is zero
// otherwise comes from the defaults of the shared configuration.
type Request struct {
	// Names are DNS names and IP addresses as people write them.
	Names []string
	// Group is DefaultGroup if empty.
	Group string
	// Issuer is a name in the shared configuration, and Fallbacks are those that
	// stand in for it after failures, in this order. Where Issuer is empty, both come
	// from the defaults; where it is not, nobody else stands in for it.
	Issuer    string
	Fallbacks []string
	// Challenge is how control of the names is proven to an ACME CA, one of
	// solver.Types, in every renewal, too; "" leaves it to the issuer's settings.
	Challenge string
	// Profile is the kind of certificate that an ACME CA is asked for, by its name
	// for it; "" leaves it to the issuer's settings.
	Profile string
	Key     issuer.KeyType
	// Lifetime is what the issuer is asked for.
	Lifetime    time.Duration
	RenewBefore config.RenewBefore
	// Force makes another certificate of names that are managed already.
	Force bool
}

// spec normalises and completes a request, and refuses one that could never be
// fulfilled.
func (m *Manager) spec(ctx context.Context, r Request) (*event.Spec, error) {
	list, err := names.NormalizeList(r.Names)
	if err != nil {
		return nil, err
	}
	shared, _, err := m.shared(ctx)
	if err != nil {
		return nil, err
	}
	s := &event.Spec{
		Group: cmp.Or(r.Group, DefaultGroup), Names: list,
		Challenge: r.Challenge, Profile: r.Profile,
		KeyType:     cmp.Or(r.Key, shared.Defaults.Key).String(),
		Lifetime:    cmp.Or(r.Lifetime, time.Duration(shared.Defaults.Lifetime)),
		RenewBefore: cmp.Or(r.RenewBefore, shared.Defaults.RenewBefore).String(),
		Created:     time.Now(),
	}
	s.Issuer, s.Fallbacks = issuersOf(r, shared)
	if err := checkSpec(s, shared); err != nil {
		return nil, err
	}
	_, err = m.groupKey(ctx, s.Group)
	return s, err
}

// checkSpec refuses what its issuers are known never to sign.
func checkSpec(s *event.Spec, shared *config.Shared) error {
	for _, check := range []func(*event.Spec, *config.Shared) error{checkIssuers, checkProof, checkPolicy, checkLifetime} {
		if err := check(s, shared); err != nil {
			return err
		}
	}
	return nil
}

// issuersOf returns the first issuer and those that stand in for it.
func issuersOf(r Request, shared *config.Shared) (first string, others []string) {
	switch {
	case r.Issuer != "":
		return r.Issuer, r.Fallbacks
	case len(shared.Defaults.Issuers) == 0:
		return shared.DefaultIssuer, r.Fallbacks
	case len(r.Fallbacks) > 0:
		return shared.Defaults.Issuers[0], r.Fallbacks
	}
	return shared.Defaults.Issuers[0], shared.Defaults.Issuers[1:]
}

func checkIssuers(s *event.Spec, shared *config.Shared) error {
	all := append([]string{s.Issuer}, s.Fallbacks...)
	for i, name := range all {
		if _, ok := shared.Issuers[name]; !ok {
			return noIssuer(name)
		}
		if slices.Contains(all[:i], name) {
			return &InvalidError{fmt.Sprintf("issuer %q is named twice: name each once, in the order in which they are asked", name)}
		}
	}
	if len(all) > event.MaxIssuers {
		return &InvalidError{fmt.Sprintf("%d issuers: at most %d are possible", len(all), event.MaxIssuers)}
	}
	return nil
}

func noIssuer(name string) error {
	return &InvalidError{fmt.Sprintf("there is no issuer %q in the shared configuration: `keyturn conf display` shows it", name)}
}

// checkProof checks how control of the names is to be proven: that one of the
// issuers asks for a proof at all, and that it is possible for each name.
func checkProof(s *event.Spec, shared *config.Shared) error {
	if s.Challenge != "" && !slices.Contains(solver.Types(), s.Challenge) {
		return &InvalidError{fmt.Sprintf("unknown challenge %q: use one of %s", s.Challenge, strings.Join(solver.Types(), ", "))}
	}
	all, proving := append([]string{s.Issuer}, s.Fallbacks...), 0
	for _, name := range all {
		if shared.Issuers[name].ACME != nil {
			proving++
		}
	}
	if proving == 0 && (s.Challenge != "" || s.Profile != "") {
		return &InvalidError{fmt.Sprintf("a challenge or a profile is for an issuer of type acme, and %s is of type %s", strings.Join(all, ", "), shared.Issuers[s.Issuer].Type)}
	}
	return provable(s.Names, s.Challenge)
}

// provable returns an error if one of the names cannot be proven by a challenge. ""
// is the issuer's default or, where that cannot prove a name, another one that can.
func provable(list []string, challenge string) error {
	for _, name := range list {
		_, err := netip.ParseAddr(name)
		switch {
		case challenge != "" && challenge != solver.DNS01 && strings.HasPrefix(name, "*."):
			return &InvalidError{fmt.Sprintf("%s: a wildcard is proven by the challenge %s only, not by %s (RFC 8555 section 7.1.3)", name, solver.DNS01, challenge)}
		case challenge == solver.DNS01 && err == nil:
			return &InvalidError{fmt.Sprintf("%s: an IP address is proven by the challenge %s or %s, not by %s (RFC 8738 section 7)", name, solver.HTTP01, solver.TLSALPN01, challenge)}
		}
	}
	return nil
}

func checkLifetime(s *event.Spec, _ *config.Shared) error {
	if s.Lifetime != 0 && s.Lifetime < MinLifetime {
		return &InvalidError{fmt.Sprintf("a lifetime of %v: at least %v are needed", s.Lifetime, MinLifetime)}
	}
	if before, err := config.ParseDuration(s.RenewBefore); err == nil && s.Lifetime != 0 && time.Duration(before) >= s.Lifetime {
		return &InvalidError{fmt.Sprintf("renewal %s before the end of a lifetime of %v: the certificate would always be due", before, s.Lifetime)}
	}
	return nil
}
