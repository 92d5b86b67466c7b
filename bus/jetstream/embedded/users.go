// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus/jetstream"
)

// Create is jetstream.Create: it makes a tenant's log and board, and returns the
// log's id. Managers cannot do it themselves. The server may have thousands to let in
// when it has just started, so Create asks again, for up to two minutes, while no answer
// comes in time.
func (s *Server) Create(ctx context.Context, tenant, known string) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	nc, err := s.connect(ctx, s.account(tenant))
	if err != nil {
		return "", err
	}
	defer nc.Close()
	for {
		id, err = jetstream.Create(ctx, nc, tenant, known)
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return id, err
		}
	}
}

// connect connects from within the process, as a user who may do everything in
// an account. When the server has just started, it may have thousands to let in before,
// so it is tried until ctx ends.
func (s *Server) connect(ctx context.Context, a *account) (*nats.Conn, error) {
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
	for {
		nc, err := nats.Connect("", nats.InProcessServer(s.server), nats.Name("keyturn embedded bus"),
			nats.Timeout(2*helloTimeout*time.Second), nats.UserJWT(func() (string, error) { return token, nil }, user.Sign))
		if err == nil {
			return nc, nil
		}
		if !s.server.Running() || errors.Is(err, nats.ErrAuthorization) {
			return nil, fmt.Errorf("embedded bus: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("embedded bus: %w", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
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
