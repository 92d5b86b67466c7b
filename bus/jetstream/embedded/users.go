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
	nc, err := s.connect(s.account(tenant))
	if err != nil {
		return "", err
	}
	defer nc.Close()
	return jetstream.Create(ctx, nc, tenant, known)
}

// connect connects from within the process, as a user who may do everything in
// an account.
func (s *Server) connect(a *account) (*nats.Conn, error) {
	user, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	public, err := user.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	token, err := jwt.NewUserClaims(public).Encode(a.key)
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	nc, err := nats.Connect("", nats.InProcessServer(s.server), nats.Name("keyturn embedded bus"),
		nats.UserJWT(func() (string, error) { return token, nil }, user.Sign))
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	return nc, nil
}

// ManagerCreds makes credentials, in the format of a NATS .creds file, for the
// tenant's first manager. Those of others are granted by a manager.
func (s *Server) ManagerCreds(tenant string) ([]byte, error) {
	mint, err := jetstream.NewMint(s.account(tenant).secret)
	if err != nil {
		return nil, err
	}
	return mint.FirstManager(tenant)
}
