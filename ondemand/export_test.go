// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"crypto/tls"
)

// InMemory is for how many names s remembers anything.
func (s *Source) InMemory() int {
	n := 0
	s.table.entries.Range(func(any, any) bool { n++; return true })
	return n
}

// Encode is what is put into a Cache.
func Encode(cert *tls.Certificate) ([]byte, error) { return encode(cert) }

// ServerName reads a name as a client sent it.
func ServerName(sent string) (string, error) { return serverName(sent) }

// Allowed asks what the Source would.
func (s *Source) Allowed(ctx context.Context, name string) error {
	if _, err := s.prepare(); err != nil {
		return err
	}
	return s.allow(ctx, name)
}
