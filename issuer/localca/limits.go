// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"crypto/x509"
	"fmt"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/policy"
)

// limits are what a CA may sign: by its certificates, and by its configuration.
type limits struct {
	constraints *policy.Constraints
	rules       *policy.Rules
}

// limits reads those of the configuration.
func (c Config) limits() (l limits, err error) {
	if l.constraints, err = policy.NewConstraints(c.Permitted, c.Excluded); err != nil {
		return l, fmt.Errorf("configuring the CA: %w", err)
	}
	if l.rules, err = policy.NewRules(c.Allowed, c.Usages); err != nil {
		return l, fmt.Errorf("configuring the CA: %w", err)
	}
	return l, nil
}

// permits returns an error that wraps [issuer.ErrRefused] unless all names may be
// signed for all usages.
func (l limits) permits(names []string, usages []x509.ExtKeyUsage) error {
	for _, name := range names {
		if err := l.constraints.Permits(name); err != nil {
			return fmt.Errorf("%w: %w", issuer.ErrRefused, err)
		}
		if err := l.rules.Permits(name); err != nil {
			return fmt.Errorf("%w: %w", issuer.ErrRefused, err)
		}
	}
	for _, usage := range usages {
		if err := l.rules.PermitsUsage(usage); err != nil {
			return fmt.Errorf("%w: %w", issuer.ErrRefused, err)
		}
	}
	return nil
}

// Permits returns an error that wraps [issuer.ErrRefused] if a CA of this
// configuration would not sign a certificate for one of the names, or not for
// one of the usages: what can be known before there is a request. A CA that was
// made with name constraints that the configuration leaves out may refuse more.
func (c Config) Permits(names []string, usages ...x509.ExtKeyUsage) error {
	l, err := c.limits()
	if err != nil {
		return err
	}
	return l.permits(names, usages)
}

// Permitted and Excluded return the name constraints in the CA's certificates.
func (ca *CA) Permitted() policy.Names { return ca.limits.constraints.Permitted() }

// Excluded is described with Permitted.
func (ca *CA) Excluded() policy.Names { return ca.limits.constraints.Excluded() }

// permits checks a template, whose usages it completes.
func (ca *CA) permits(template *x509.Certificate) error {
	if len(template.ExtKeyUsage) == 0 {
		template.ExtKeyUsage = ca.limits.rules.Usages()
	}
	if ca.limits == (limits{}) {
		return nil
	}
	return ca.limits.permits(issuer.NamesOf(template), template.ExtKeyUsage)
}
