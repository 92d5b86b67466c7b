// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
)

// localIssuer is the type "local", the built-in CA: it keeps its keys.
type localIssuer struct{}

func (localIssuer) found(m *Manager, s *event.IssuerState, shared *config.Shared) error {
	ca, err := localca.New(localConfig(shared.Issuers[s.Name].Local))
	if err != nil {
		return err
	}
	s.Roots = [][]byte{ca.Root().Raw}
	s.Sealed, err = ca.Seal(m.identity.Sealing[0].Public(), s.Associated(m.tenant))
	return err
}

func (localIssuer) open(m *Manager, s *event.IssuerState, shared *config.Shared) (issuer.Issuer, error) {
	return localca.Open(m.identity.Sealing, s.Associated(m.tenant), s.Sealed, localConfig(shared.Issuers[s.Name].Local))
}

func (localIssuer) enrol(context.Context, *Manager, issuer.Issuer, *event.IssuerState, *config.Shared) (*event.IssuerState, error) {
	return nil, nil
}

func (localIssuer) tell(*Manager, *event.IssuerState, config.Issuer, *IssuerInfo) error { return nil }

func localConfig(c *config.LocalCA) localca.Config {
	return localca.Config{
		Name: c.Name, KeyType: c.Key,
		Lifetime: time.Duration(c.Lifetime), MaxLifetime: time.Duration(c.MaxLifetime),
		RootLifetime: time.Duration(c.RootLifetime), IntermediateLifetime: time.Duration(c.IntermediateLifetime),
		Backdate: time.Duration(c.Backdate),
	}
}
