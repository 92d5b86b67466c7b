// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/seal"
)

// A refusedError says why a request to join is not answered, now and later.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return e.reason }

// A keyring returns a group's private keys, the newest first: see Config.Keys.
type keyring func(group string) ([]*seal.PrivateKey, error)

// admit makes whoever sent a request a member, with the group's keys if they are
// at hand, and returns it. It is one manager's doing: the one that uses the
// token up. Of what it left undone, any other makes up. The error may be a
// *refusedError.
func (m *Manager) admit(ctx context.Context, request bus.Entry, keys keyring) (*Member, error) {
	r, token, at, err := m.verified(ctx, request)
	if err != nil {
		return nil, err
	}
	h, err := m.member(ctx, r.Group, r.ID)
	var none *NoMemberError
	if !errors.As(err, &none) {
		return h, err
	}
	if h, err = m.newMember(ctx, r, keys); err != nil {
		return nil, fmt.Errorf("admitting %s to group %q: %w", r.Name, r.Group, err)
	}
	if len(token.Request) == 0 {
		used := *token
		sum := sha256.Sum256(request.Data)
		used.Request, used.Used = sum[:], time.Now()
		if _, err := m.append(ctx, at, &used); err != nil {
			return nil, err // a conflict: another manager has used it up
		}
		crash.Point(crash.TokenUsed)
	}
	if h.Position, err = m.append(ctx, bus.Position{}, &h.Member); conflict(err) {
		return m.member(ctx, r.Group, r.ID)
	}
	if err != nil {
		return nil, err
	}
	crash.Point(crash.Admitted)
	m.progress(h.ID, fmt.Sprintf("%s is a member of group %q", h.Name, h.Group))
	m.logger.Info("member has joined", "member", h.ID, "name", h.Name, "group", h.Group, "granted", len(h.Keys) > 0)
	return h, nil
}

// verified returns a request that a token entitles to an answer, with the token
// and where that stands.
func (m *Manager) verified(ctx context.Context, request bus.Entry) (*event.JoinRequest, *event.JoinToken, bus.Position, error) {
	refuse := func(format string, v ...any) (*event.JoinRequest, *event.JoinToken, bus.Position, error) {
		return nil, nil, bus.Position{}, &refusedError{fmt.Sprintf(format, v...)}
	}
	unverified, err := event.Trusted(m.tenant, request.Data)
	if err != nil {
		return refuse("it cannot be read: %v", err)
	}
	claimed, ok := unverified.Body.(*event.JoinRequest)
	if !ok || unverified.Key != request.Key {
		return refuse("it was not made for %s", request.Key)
	}
	token, at, err := get[*event.JoinToken](ctx, m, event.TokenKey(claimed.ID))
	if isNotFound(err) {
		return refuse("there is no such token")
	}
	if errors.Is(err, seal.ErrUnknownSigner) {
		return refuse("the token is of somebody who is not, or no longer, a manager")
	}
	if err != nil {
		return nil, nil, at, err
	}
	key, err := seal.NewVerifyKey(token.Key)
	if err != nil {
		return refuse("the token: %v", err)
	}
	e, err := event.Open([]*seal.VerifyKey{key}, m.tenant, request.Key, request.Data)
	if err != nil {
		return refuse("it is not signed by the token: %v", err)
	}
	r, ok := e.Body.(*event.JoinRequest)
	sum := sha256.Sum256(request.Data)
	switch {
	case !ok || r.Group != token.Group:
		return refuse("the token is one for group %q", token.Group)
	case len(token.Request) > 0 && !bytes.Equal(token.Request, sum[:]):
		return refuse("the token was used up by another request at %s", token.Used.Format(time.RFC3339))
	case len(token.Request) == 0 && time.Now().After(token.Expires):
		return refuse("the token expired at %s", token.Expires.Format(time.RFC3339))
	}
	return r, token, at, nil
}

// newMember makes the member that comes of a request. It writes nothing.
func (m *Manager) newMember(ctx context.Context, r *event.JoinRequest, keys keyring) (*Member, error) {
	g, _, err := m.group(ctx, r.Group)
	if err != nil {
		return nil, err
	}
	grant, err := m.replicaGrant(ctx, r)
	if err != nil {
		return nil, err
	}
	h := &Member{Member: event.Member{JoinRequest: *r, Grant: grant, Joined: time.Now()}}
	held, err := keys(r.Group)
	if err != nil {
		m.logger.Warn("the keys of a group cannot be read", "group", r.Group, "error", err)
		return h, nil
	}
	_, err = m.lend(&h.Member, g, held)
	return h, err
}

// lend seals to a member those of the held keys that it has not and that are of
// use. It reports whether anything has changed. Without the group's current key,
// nothing does. What the member has of another holder's, it keeps, in front: its
// group may be about to get that.
func (m *Manager) lend(h *event.Member, g *event.Group, held []*seal.PrivateKey) (changed bool, err error) {
	current, err := seal.NewPublicKey(g.Key)
	if err != nil {
		return false, err
	}
	held = slices.DeleteFunc(slices.Clone(held), func(k *seal.PrivateKey) bool { return isFormer(g.Retired, k.Public().ID()) })
	id := func(k *seal.PrivateKey) seal.KeyID { return k.Public().ID() }
	if !slices.ContainsFunc(held, func(k *seal.PrivateKey) bool { return id(k) == current.ID() }) {
		return false, nil
	}
	if !slices.ContainsFunc(held, func(k *seal.PrivateKey) bool { return !slices.Contains(h.KeyIDs, id(k)) }) {
		return false, nil
	}
	next := *h
	if err := next.Seal(m.tenant, held); err != nil {
		return false, err
	}
	for i, other := range slices.Backward(h.KeyIDs) {
		if !slices.Contains(next.KeyIDs, other) {
			next.Keys, next.KeyIDs = slices.Insert(next.Keys, 0, h.Keys[i]), slices.Insert(next.KeyIDs, 0, other)
		}
	}
	*h = next
	return true, nil
}

// grant gives a member what it lacks of a group's keys that are held, and
// reports whether it got any.
func (m *Manager) grant(ctx context.Context, group, id string, held []*seal.PrivateKey) (bool, error) {
	for {
		h, err := m.member(ctx, group, id)
		if err != nil || !h.Revoked.IsZero() {
			return false, err
		}
		g, _, err := m.group(ctx, group)
		if err != nil {
			return false, err
		}
		if changed, err := m.lend(&h.Member, g, held); err != nil || !changed {
			return false, err
		}
		_, err = m.succeed(ctx, h.Position, h.Signed, &h.Member)
		if conflict(err) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("granting the keys of group %q to %s: %w", group, h.Name, err)
		}
		crash.Point(crash.KeyGranted)
		m.progress(h.ID, fmt.Sprintf("%s has the keys of group %q", h.Name, group))
		m.logger.Info("member is granted the group's keys", "member", h.ID, "name", h.Name, "group", group)
		return true, nil
	}
}

// Grant admits everybody who has asked to join a group with a token of it, and
// gives the group's private keys, the newest first, to the members that lack
// some. It is one pass of what Run does all the time, for where no manager runs,
// or none that holds the keys. It returns how many members were given keys.
func (m *Manager) Grant(ctx context.Context, group string, keys []*seal.PrivateKey) (granted int, err error) {
	g, _, err := m.group(ctx, group)
	if err != nil {
		return 0, err
	}
	current, err := seal.NewPublicKey(g.Key)
	if err != nil {
		return 0, err
	}
	if !slices.ContainsFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().Equal(current) }) {
		return 0, &InvalidError{fmt.Sprintf("the current key of group %q, %s, is not among those given: is the key file older than the last rotation?", group, current.ID())}
	}
	h := newHosts(m, func(asked string) ([]*seal.PrivateKey, error) {
		if asked != group {
			return nil, nil
		}
		return keys, nil
	})
	h.only = group
	if err := h.readAll(ctx); err != nil {
		return 0, err
	}
	return h.tend(ctx)
}
