// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"crypto/subtle"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// Credentials makes what logs hosts in to the bus: for NATS, users' JWTs. A user
// is the public half of the key by which one logs in.
type Credentials interface {
	// Join grants what joining needs, and nothing else, until expires: to write
	// the request with this id, and to follow it and the member that comes of it.
	Join(tenant, group, id, user string, expires time.Time) (grant string, err error)
	// Replica grants what a member of a group needs.
	Replica(tenant, group, id, user string) (grant string, err error)
	// Manager grants what a manager needs.
	Manager(tenant, name, user string) (grant string, err error)
}

// SetBusInfo makes known how other hosts reach the bus, and the secret that
// signs credentials for it, nil where the engine makes its own. What is the same
// already is not written again. info.Sealed does not matter.
func (m *Manager) SetBusInfo(ctx context.Context, info *event.BusInfo, secret []byte) error {
	for {
		old, at, err := get[*event.BusInfo](ctx, m, event.BusInfoKey)
		if err != nil && !isNotFound(err) {
			return fmt.Errorf("reading how the bus is reached: %w", err)
		}
		if err == nil && m.sameBus(old, info, secret) {
			return nil
		}
		next := &event.BusInfo{URLs: info.URLs, Roots: info.Roots}
		if len(secret) > 0 {
			if err := next.Seal(m.tenant, m.identity.Sealing[0].Public(), secret); err != nil {
				return err
			}
		}
		if _, err = m.append(ctx, at, next); !conflict(err) {
			crash.Point(crash.BusTold)
			if err != nil {
				return fmt.Errorf("writing how the bus is reached: %w", err)
			}
			return nil
		}
	}
}

// sameBus reports whether old says what info and secret do.
func (m *Manager) sameBus(old, info *event.BusInfo, secret []byte) bool {
	var known []byte
	if len(old.Sealed) > 0 {
		var err error
		if known, err = old.Open(m.tenant, m.identity.Sealing); err != nil {
			return false
		}
	}
	defer clear(known)
	return slices.Equal(old.URLs, info.URLs) && slices.EqualFunc(old.Roots, info.Roots, bytes.Equal) &&
		subtle.ConstantTimeCompare(known, secret) == 1
}

// busInfo returns how the bus is reached, and what makes credentials for it:
// nil if this manager cannot.
func (m *Manager) busInfo(ctx context.Context) (*event.BusInfo, Credentials, error) {
	info, _, err := get[*event.BusInfo](ctx, m, event.BusInfoKey)
	if isNotFound(err) {
		return nil, nil, &InvalidError{"how other hosts reach the bus is not known yet: a manager that runs with an address for them, as `keyturn serve` does, writes it there"}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading how the bus is reached: %w", err)
	}
	if m.mint == nil || len(info.Sealed) == 0 {
		return info, nil, nil
	}
	secret, err := info.Open(m.tenant, m.identity.Sealing)
	if err != nil {
		return nil, nil, fmt.Errorf("opening the secret that signs credentials for the bus: %w", err)
	}
	defer clear(secret)
	c, err := m.mint(secret)
	if err != nil {
		return nil, nil, fmt.Errorf("the secret that signs credentials for the bus: %w", err)
	}
	return info, c, nil
}
