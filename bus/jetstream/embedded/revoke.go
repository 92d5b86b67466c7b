// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/internal/durable"
)

// revokedFile holds the public keys of revoked users, one a line.
const revokedFile = "revoked"

// maxRevoked bounds it, in bytes. The server takes fewer, some 11,000 users: an
// account's JWT has at most 1 MiB.
const maxRevoked = 4 << 20

// revokeTimeout bounds how long it is looked whether a revocation may be asked for.
const revokeTimeout = 5 * time.Second

func readRevoked(path string) ([]string, error) {
	text, err := durable.ReadTrusted(path, maxRevoked)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading who is revoked: %w", err)
	}
	return strings.Fields(string(text)), nil
}

// Revoke takes from these users (public keys) of a tenant's account what they
// were granted, for good. Their connections end at once, and when it returns nil
// none of them gets in again, after a restart either. Those who were revoked
// before stay so, whether they are named or not.
func (s *Server) Revoke(tenant string, users []string) error {
	if err := s.account(tenant).revoke(s.keys, s.server, users); err != nil {
		return fmt.Errorf("embedded bus: revoking users: %w", err)
	}
	return nil
}

// hearRevocations takes what managers ask for by jetstream's Revoke, each in the
// account that he is in.
func (s *Server) hearRevocations() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for tenant, a := range s.accounts {
		nc, err := s.connect(ctx, a)
		if err != nil {
			return err
		}
		s.inside = append(s.inside, nc)
		_, err = nc.Subscribe(jetstream.RevokeSubject("*", "*"), func(m *nats.Msg) {
			if jetstream.AsksDurability(m) {
				_ = m.Respond([]byte(jetstream.EmbeddedAlways)) // who asked asks again
				return
			}
			answer := []byte(jetstream.RevokeDone)
			if err := s.revokeAsked(nc, tenant, m); err != nil {
				s.logger.Error("a revocation that was asked for has failed", "error", err)
				answer = []byte("the server failed at it; its log says why")
			}
			_ = m.Respond(answer) // who asked asks again
		})
		if err != nil {
			return fmt.Errorf("embedded bus: %w", err)
		}
		if err := nc.Flush(); err != nil {
			return fmt.Errorf("embedded bus: %w", err)
		}
	}
	return nil
}

func (s *Server) revokeAsked(nc *nats.Conn, tenant string, m *nats.Msg) error {
	ctx, cancel := context.WithTimeout(context.Background(), revokeTimeout)
	defer cancel()
	if err := jetstream.MayRevoke(ctx, nc, m.Subject); err != nil {
		return err
	}
	return s.Revoke(tenant, strings.Fields(string(m.Data)))
}
