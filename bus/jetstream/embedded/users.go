// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"fmt"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus/jetstream"
)

// Create is jetstream.Create: it makes a tenant's log and board, and returns the
// log's id. Managers cannot do it themselves.
func (s *Server) Create(ctx context.Context, tenant, known string) (id string, err error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return "", fmt.Errorf("embedded bus: %w", err)
	}
	defer user.Wipe()
	public, err := user.PublicKey()
	if err != nil {
		return "", fmt.Errorf("embedded bus: %w", err)
	}
	token, err := jwt.NewUserClaims(public).Encode(s.keys.account)
	if err != nil {
		return "", fmt.Errorf("embedded bus: %w", err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(s.server), nats.Name("keyturn embedded bus"),
		nats.UserJWT(func() (string, error) { return token, nil }, user.Sign))
	if err != nil {
		return "", fmt.Errorf("embedded bus: %w", err)
	}
	defer nc.Close()
	return jetstream.Create(ctx, nc, tenant, known)
}

// ManagerCreds makes credentials, in the format of a NATS .creds file, for a
// manager of the tenant.
func (s *Server) ManagerCreds(tenant string) ([]byte, error) {
	return s.creds(func(m *jetstream.Mint, user string) (string, error) {
		return m.Manager(tenant, "first", user)
	})
}

// ReplicaCreds makes credentials for processes of this machine that follow the
// group without being members of it.
func (s *Server) ReplicaCreds(tenant, group string) ([]byte, error) {
	return s.creds(func(m *jetstream.Mint, user string) (string, error) {
		return m.Reader(tenant, group, user)
	})
}

func (s *Server) creds(grant func(m *jetstream.Mint, user string) (string, error)) ([]byte, error) {
	mint, err := jetstream.NewMint(s.secret)
	if err != nil {
		return nil, err
	}
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	defer user.Wipe()
	public, err := user.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	token, err := grant(mint, public)
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	seed, err := user.Seed()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: making credentials: %w", err)
	}
	return jwt.FormatUserConfig(token, seed)
}
