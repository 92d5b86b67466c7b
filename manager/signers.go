// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/seal"
)

// hostName is the host's name if it can name a manager.
func hostName() string {
	name, err := os.Hostname()
	if err != nil || event.CheckHost(name) != nil {
		return "manager"
	}
	return name
}

// initSigners writes the first set of managers, if there is none.
func (m *Manager) initSigners(ctx context.Context) error {
	t, err := m.lookUpManagers(ctx)
	if err == nil {
		t, err = m.putBack(ctx, t)
	}
	if err != nil {
		return err
	}
	if t.set != nil || t.problem != nil {
		return t.problem
	}
	own := m.identity.Signing.Public()
	now := time.Now()
	set := &event.ManagerSet{Serial: 1, Keys: []event.ManagerKey{{Name: m.name, Key: own.Bytes(), Added: now, User: m.user}}}
	for _, k := range t.keys {
		if !k.Equal(own) {
			set.Keys = append(set.Keys, event.ManagerKey{Name: k.ID().String(), Key: k.Bytes(), Added: now})
		}
	}
	_, err = m.appendSet(ctx, bus.Position{}, new(event.ManagerChain), set)
	if !conflict(err) {
		return err
	}
	if t, err = m.lookUpManagers(ctx); err == nil {
		err = t.problem
	}
	return err
}

// putBack writes the list of managers that is known in place of an older one, or
// none: the log went back.
func (m *Manager) putBack(ctx context.Context, t *trust) (*trust, error) {
	if len(t.chain) == 0 {
		return t, nil
	}
	entry, err := m.newest(ctx, event.ManagersKey)
	if err != nil {
		return nil, &busError{fmt.Errorf("reading who the managers are: %w", err)}
	}
	if entry.Data != nil && !errors.Is(t.problem, event.ErrOldManagers) {
		return t, nil
	}
	m.logger.Error("the log went back: the list of managers is put there again", "serial", t.serial)
	if _, err := m.write(ctx, event.ManagersKey, entry.Position, t.chain); err != nil && !conflict(err) {
		return nil, err
	}
	return m.lookUpManagers(ctx)
}

// appendSet adds a set to the chain that stands at after.
func (m *Manager) appendSet(ctx context.Context, after bus.Position, chain *event.ManagerChain, set *event.ManagerSet) (bus.Position, error) {
	next := &event.ManagerChain{Sets: chain.Sets}
	if err := next.Add(m.identity.Signing, m.tenant, time.Now(), set); err != nil {
		return bus.Position{}, err
	}
	at, err := m.append(ctx, after, next)
	if err != nil {
		return at, err
	}
	crash.Point(crash.ManagersListed)
	_, err = m.lookUpManagers(ctx)
	return at, err
}

// A signerList is what stands under event.ManagersKey.
type signerList struct {
	*trust
	chain    *event.ManagerChain
	position bus.Position
}

// signers reads it anew.
func (m *Manager) signers(ctx context.Context) (*signerList, error) {
	entry, err := m.newest(ctx, event.ManagersKey)
	if err != nil {
		return nil, &busError{fmt.Errorf("reading who the managers are: %w", err)}
	}
	t := m.learn(entry.Data)
	if t.problem != nil {
		return nil, fmt.Errorf("the list of managers on the bus: %w", t.problem)
	}
	if t.set == nil {
		return nil, errors.New("the bus has no list of managers yet: start `keyturn serve` on it first")
	}
	e, err := event.Trusted(m.tenant, entry.Data)
	if err != nil {
		return nil, err
	}
	chain, ok := e.Body.(*event.ManagerChain)
	if !ok {
		return nil, event.ErrUnsupported
	}
	return &signerList{t, chain, entry.Position}, nil
}

// Signers returns the managers of this bus.
func (m *Manager) Signers(ctx context.Context) (*event.ManagerSet, error) {
	l, err := m.signers(ctx)
	if err != nil {
		return nil, err
	}
	return l.set, nil
}

// AddSigner makes whoever holds the private half of key a manager, known to
// people by name, that logs in to the bus as user, "" where the engine knows no
// users. A key that is a manager's already stays as it is. One that was revoked
// cannot come back: what was written with it since would be believed.
func (m *Manager) AddSigner(ctx context.Context, name string, key *seal.VerifyKey, user string) error {
	if err := event.CheckHost(name); err != nil {
		return &InvalidError{fmt.Sprintf("the manager's name %q: %v", name, err)}
	}
	same := func(k event.ManagerKey) bool { return bytes.Equal(k.Key, key.Bytes()) }
	for {
		l, err := m.signers(ctx)
		switch {
		case err != nil:
			return err
		case slices.ContainsFunc(l.set.Keys, same):
			return nil
		case slices.ContainsFunc(l.former, same):
			return &InvalidError{fmt.Sprintf("the key %s was revoked and cannot be a manager's again: make a new identity", key.ID())}
		case len(l.set.Keys) >= event.MaxKeys:
			return &InvalidError{fmt.Sprintf("there are %d managers, and no more are possible: revoke one first", len(l.set.Keys))}
		}
		if err := m.vouchForRest(ctx, l, false); err != nil { // a revocation that was cut short
			return err
		}
		set := &event.ManagerSet{Serial: l.set.Serial + 1, Keys: slices.Clone(l.set.Keys)}
		set.Keys = append(set.Keys, event.ManagerKey{Name: name, Key: key.Bytes(), Added: time.Now(), User: user})
		if _, err = m.appendSet(ctx, l.position, l.chain, set); !conflict(err) {
			if err != nil {
				return fmt.Errorf("adding manager %s: %w", name, err)
			}
			m.logger.Warn("manager is added", "name", name, "key", key.ID())
			return nil
		}
	}
}

// RevokeSigner ends the trust in a manager, found by its name or the start of its
// key's id. This manager first signs anew whatever stands on the bus
// signed by the other, so that it goes on being believed. It must be the work of
// another manager, and one must be left.
//
// What the revoked manager writes afterwards is believed by nobody. If it is
// alive and well, stop it first: until it has learnt of this, what it writes
// hides what stood there. The join tokens that it made end, too; the members that
// it let in stay. RevokeSigner may be called again, for what was cut
// short. Its user of the bus is told to
// Config.Revoked; that it has no more rights there is the work of the bus.
func (m *Manager) RevokeSigner(ctx context.Context, prefix string) error {
	l, err := m.signers(ctx)
	if err != nil {
		return err
	}
	k, err := l.find(prefix)
	if err != nil {
		return err
	}
	if bytes.Equal(k.Key, m.identity.Signing.Public().Bytes()) {
		return &InvalidError{"a manager cannot revoke itself: do it as another one"}
	}
	now := l.has(k)
	for l.has(k) {
		if err := m.leaveOut(ctx, l, k); err != nil && !conflict(err) {
			return fmt.Errorf("revoking manager %s: %w", k.Name, err)
		}
		if l, err = m.signers(ctx); err != nil {
			return err
		}
	}
	return errors.Join(m.vouchForRest(ctx, l, now), m.tellRevoked(ctx))
}

// leaveOut writes a set without a manager, after what that signed has been
// signed anew. The error may be a conflict.
func (m *Manager) leaveOut(ctx context.Context, l *signerList, k event.ManagerKey) error {
	key, err := seal.NewVerifyKey(k.Key)
	if err != nil {
		return err
	}
	if _, err := m.vouch(ctx, voucher{m: m, gone: []*seal.VerifyKey{key}}); err != nil {
		return err
	}
	crash.Point(crash.VouchedForAll)
	reached, err := m.reachedNow(ctx)
	if err != nil {
		return err
	}
	set := &event.ManagerSet{Serial: l.set.Serial + 1, Reached: reached}
	for _, other := range l.set.Keys {
		if !bytes.Equal(other.Key, k.Key) {
			set.Keys = append(set.Keys, other)
		}
	}
	if _, err := m.appendSet(ctx, l.position, l.chain, set); err != nil {
		return err
	}
	m.progress(key.ID().String(), fmt.Sprintf("manager %s is revoked", k.Name))
	m.logger.Warn("manager is revoked", "name", k.Name, "key", key.ID())
	return nil
}

// has reports whether k is in the newest set.
func (l *signerList) has(k event.ManagerKey) bool {
	return slices.ContainsFunc(l.set.Keys, func(o event.ManagerKey) bool { return bytes.Equal(o.Key, k.Key) })
}

// find returns the manager with a name, or else whose key's id starts so: one of
// the newest set, or else one that was.
func (l *signerList) find(prefix string) (event.ManagerKey, error) {
	named := func(k event.ManagerKey) bool { return k.Name == prefix }
	starts := func(k event.ManagerKey) bool { return prefix != "" && strings.HasPrefix(idOf(k), prefix) }
	for _, keys := range [][]event.ManagerKey{l.set.Keys, l.former} {
		for _, fits := range []func(event.ManagerKey) bool{named, starts} {
			found := slices.DeleteFunc(slices.Clone(keys), func(k event.ManagerKey) bool { return !fits(k) })
			switch len(found) {
			case 0:
				continue
			case 1:
				return found[0], nil
			}
			e := &AmbiguousError{Prefix: prefix}
			for _, k := range found {
				e.IDs = append(e.IDs, idOf(k))
			}
			return event.ManagerKey{}, e
		}
	}
	return event.ManagerKey{}, &InvalidError{fmt.Sprintf("there is no manager %q: `keyturn manager ls` lists them", prefix)}
}

// idOf returns the id of a manager's key as people read it.
func idOf(k event.ManagerKey) string {
	v, err := seal.NewVerifyKey(k.Key)
	if err != nil { // nobody signs such a set
		return ""
	}
	return v.ID().String()
}
