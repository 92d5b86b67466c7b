// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/issuers"
	"github.com/keyturn/keyturn/issuer"
)

// plainIssuer is every type of a CA that is a server of its own, where nothing has to
// be kept for it: what there is to know stands in its settings.
type plainIssuer struct{}

func (plainIssuer) found(*Manager, *event.IssuerState, *config.Shared) error { return nil }

func (plainIssuer) open(_ *Manager, s *event.IssuerState, shared *config.Shared) (issuer.Issuer, error) {
	return issuers.Open(shared.Issuers[s.Name])
}

func (plainIssuer) enrol(context.Context, *Manager, issuer.Issuer, *event.IssuerState, *config.Shared) (*event.IssuerState, error) {
	return nil, nil
}

func (plainIssuer) tell(_ *Manager, _ *event.IssuerState, c config.Issuer, i *IssuerInfo) error {
	i.Address = issuers.Address(c)
	return nil
}
