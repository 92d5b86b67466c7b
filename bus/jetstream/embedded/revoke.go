// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/internal/durable"
)

// revokedFile holds the public keys of revoked users, one a line.
const revokedFile = "revoked"

// maxRevoked bounds it, in bytes: 70,000 users.
const maxRevoked = 4 << 20

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

// Revoke takes from these users (public keys) what they were granted, for good.
// Their connections end at once, and when it returns nil none of them gets in
// again, after a restart either. Those who were revoked before stay so, whether
// they are named or not.
func (s *Server) Revoke(users []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Concat(s.revoked, users)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == len(s.revoked) {
		return nil
	}
	claims, err := s.keys.claims(all)
	if err != nil {
		return fmt.Errorf("embedded bus: revoking users: %w", err)
	}
	if err := durable.WriteFile(s.revokedFile, []byte(strings.Join(all, "\n")+"\n"), durable.PrivateFile); err != nil {
		return fmt.Errorf("embedded bus: revoking users: %w", err)
	}
	if claims, err = s.keys.store(s.server.AccountResolver(), claims); err != nil {
		return fmt.Errorf("embedded bus: revoking users: %w", err)
	}
	account, err := s.server.LookupAccount(claims.Subject)
	if err != nil {
		return fmt.Errorf("embedded bus: revoking users: %w", err)
	}
	s.server.UpdateAccountClaims(account, claims)
	s.revoked = all
	return nil
}
