// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
)

// Lifetimes of a join token.
const (
	DefaultTokenLifetime = 15 * time.Minute
	MinTokenLifetime     = time.Minute
	MaxTokenLifetime     = 24 * time.Hour
)

// NewToken makes a token by which one host can join a group, once, within the
// lifetime; 0 is DefaultTokenLifetime. Other managers know it when NewToken
// returns. It has to be brought to the host by a way that nobody else reads: see
// event.Token.Encode.
//
// It takes that the bus says how it is reached: see SetBusInfo.
func (m *Manager) NewToken(ctx context.Context, group string, lifetime time.Duration) (*event.Token, error) {
	if lifetime == 0 {
		lifetime = DefaultTokenLifetime
	}
	if lifetime < MinTokenLifetime || lifetime > MaxTokenLifetime {
		return nil, &InvalidError{fmt.Sprintf("a join token of %v: %v to %v are possible", lifetime, MinTokenLifetime, MaxTokenLifetime)}
	}
	if _, _, err := m.group(ctx, group); err != nil {
		return nil, err
	}
	set, err := m.Signers(ctx)
	if err != nil {
		return nil, err
	}
	info, creds, err := m.busInfo(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := event.NewToken()
	t.Tenant, t.Group, t.Expires = m.tenant, group, now.Add(lifetime)
	t.Serial, t.URLs, t.Roots = set.Serial, info.URLs, info.Roots
	for _, k := range set.Keys {
		t.Managers = append(t.Managers, k.Key)
	}
	if t.Grant, err = m.joinGrant(info, creds, t); err != nil {
		return nil, err
	}
	key, err := t.SigningKey()
	if err != nil {
		return nil, err
	}
	_, err = m.append(ctx, bus.Position{}, &event.JoinToken{
		ID: t.ID, Group: group, Key: key.Public().Bytes(), Created: now, Expires: t.Expires,
	})
	if err != nil {
		return nil, fmt.Errorf("making a join token for group %q: %w", group, err)
	}
	crash.Point(crash.TokenMade)
	m.logger.Info("join token is made", "id", t.ID, "group", group, "expires", t.Expires)
	return t, nil
}

// joinGrant returns what logs the host in to the bus for joining; "" where the
// engine knows no such thing.
func (m *Manager) joinGrant(info *event.BusInfo, creds Credentials, t *event.Token) (string, error) {
	secret, err := t.User()
	if err != nil {
		return "", err
	}
	defer clear(secret)
	d, err := bus.DriverOf(info.URLs[0])
	if err != nil {
		if creds == nil { // an engine without credentials need not be in this program
			return "", nil
		}
		return "", err
	}
	user, err := d.User(secret)
	switch {
	case err != nil:
		return "", fmt.Errorf("the join token's user of the bus: %w", err)
	case user == "":
		return "", nil
	case creds == nil:
		return "", errNoCredentials
	}
	grant, err := creds.Join(m.tenant, t.Group, t.ID, user, t.Expires)
	if err != nil {
		return "", fmt.Errorf("credentials for the join token: %w", err)
	}
	return grant, nil
}

// replicaGrant returns what logs a member in to the bus; "" where the engine
// knows no users.
func (m *Manager) replicaGrant(ctx context.Context, r *event.JoinRequest) (string, error) {
	if r.User == "" {
		return "", nil
	}
	_, creds, err := m.busInfo(ctx)
	if err != nil {
		return "", err
	}
	if creds == nil {
		return "", errNoCredentials
	}
	grant, err := creds.Replica(m.tenant, r.Group, r.ID, r.User)
	if err != nil {
		return "", fmt.Errorf("credentials for %s: %w", r.Name, err)
	}
	return grant, nil
}

var errNoCredentials = errors.New("the bus wants credentials, and this manager cannot make them: " +
	"the secret that signs them is not on the bus, or of an engine that is not in this program; the manager that runs the bus writes it there")
