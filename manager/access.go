// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// Access is what another manager works with. It holds private keys.
type Access struct {
	// Identity has a signing key of its own, and the sealing keys that all managers
	// share.
	Identity *seal.Identity
	// Managers are the signing keys that are trusted now; that of Identity is not
	// among them before AddSigner.
	Managers []*seal.VerifyKey
	Tenant   string
	// Bus says where the bus is.
	Bus *event.BusInfo
	// User is the bus user, and Creds the text of its credentials file; both are
	// empty where the engine of the bus knows none.
	User  string
	Creds []byte
}

// NewAccess makes what another manager works with. Nobody believes what it signs
// before AddSigner is called with the public half of its signing key.
func (m *Manager) NewAccess(ctx context.Context, name string) (*Access, error) {
	set, err := m.Signers(ctx)
	if err != nil {
		return nil, err
	}
	info, mint, err := m.busInfo(ctx)
	if err != nil {
		return nil, err
	}
	key, err := seal.GenerateSigningKey()
	if err != nil {
		return nil, err
	}
	a := &Access{
		Identity: &seal.Identity{Signing: key, Sealing: m.identity.Sealing},
		Managers: set.Trusted(), Tenant: m.tenant, Bus: info,
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails: see crypto/rand
	defer clear(secret)
	driver, err := bus.DriverOf(info.URLs[0])
	if err != nil {
		return nil, err
	}
	if a.User, err = driver.User(secret); err != nil || a.User == "" {
		return a, err
	}
	if mint == nil {
		return nil, errNoCredentials
	}
	grant, err := mint.Manager(m.tenant, name, a.User)
	if err != nil {
		return nil, fmt.Errorf("making bus credentials for manager %s: %w", name, err)
	}
	a.Creds, err = driver.Credentials(grant, secret)
	return a, err
}

// ID is the id of this manager's signing key.
func (m *Manager) ID() seal.KeyID { return m.identity.Signing.Public().ID() }
