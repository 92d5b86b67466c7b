// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
	"github.com/keyturn/keyturn/seal"
)

// takeMember takes what managers say of this member: which keys it is granted,
// and whether it is revoked. The error is that of writing the keys down; they
// are used all the same.
func (r *Replica) takeMember(u bus.Update) error {
	if u.CaughtUp {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.applyMember(u.Entry)
}

// errOlder is why something is refused of which a newer one was taken. When managers
// signed it tells: they sign what takes the place of something later than that.
var errOlder = errors.New("a newer one was taken")

func (r *Replica) applyMember(entry bus.Entry) error {
	r.refusedMember = nil
	e, err := event.Open(*r.managers.Load(), r.tenant, entry.Key, entry.Data)
	if err != nil {
		if errors.Is(err, seal.ErrUnknownSigner) {
			r.refusedMember = &entry // the list of managers may be on its way
		}
		r.refuse(entry.Key, reasonOf(err), err)
		return nil
	}
	m, ok := e.Body.(*event.Member)
	if !ok || m.ID != r.member.ID {
		r.refuse(entry.Key, RefusedUnsupported, event.ErrUnsupported)
		return nil
	}
	if e.Time.Before(r.memberSigned) {
		r.refuse(entry.Key, RefusedReplay, errOlder)
		return nil
	}
	r.memberSigned = e.Time
	if !m.Revoked.IsZero() && !r.status.Revoked {
		r.status.Revoked = true
		r.logger.Error("this member is revoked: nothing new will come, what is here is served on; join anew to go on", "member", m.ID, "revoked", m.Revoked)
	}
	if r.status.Revoked || len(m.Keys) == 0 || !r.followsKeys {
		return nil
	}
	keys, err := m.Open(r.tenant, r.member.host.Sealing)
	if err != nil {
		r.refuse(entry.Key, RefusedKey, err)
		return nil
	}
	return r.grant(keys)
}

// grant makes keys, the newest first, those that are used. Others stay behind
// them for as long as something here needs them.
func (r *Replica) grant(granted []*seal.PrivateKey) error {
	keys := slices.Clone(granted)
	for _, k := range r.keys {
		if !hasKey(granted, k.Public().ID()) {
			keys = append(keys, k)
		}
	}
	added := slices.ContainsFunc(granted, func(k *seal.PrivateKey) bool { return !hasKey(r.keys, k.Public().ID()) })
	r.keys, r.granted = keys, granted
	crash.Point(crash.KeysTaken)
	err := r.saveKeys()
	crash.Point(crash.KeysKept)
	if added {
		r.logger.Info("the group has a new key", "key", granted[0].Public().ID().String())
		r.retry()
		r.kick()
	}
	r.dropKeys()
	return err
}

// saveKeys writes the keys down where the file has others.
func (r *Replica) saveKeys() error {
	if slices.EqualFunc(r.stored, r.keys, (*seal.PrivateKey).Equal) {
		return nil
	}
	if err := seal.WritePrivateKeyFile(KeyFile(r.dir, r.group), r.keys...); err != nil {
		return fmt.Errorf("writing down the group's keys: %w", err)
	}
	r.stored = r.keys
	return nil
}

// dropKeys drops the keys that are not granted any more, but for those that
// something here still needs. The snapshot goes first: a file of it that only a
// dropped key opens would be lost. Where it cannot be written the keys stay
// until the next change.
func (r *Replica) dropKeys() {
	if r.granted == nil || len(r.keys) == len(r.granted) {
		return
	}
	needed := make(map[seal.KeyID]bool)
	for _, h := range r.held {
		if !h.removed {
			needed[h.sealed] = true
		}
	}
	var keep []*seal.PrivateKey
	for _, k := range r.keys {
		if id := k.Public().ID(); hasKey(r.granted, id) || needed[id] {
			keep = append(keep, k)
		}
	}
	if len(keep) == len(r.keys) {
		return
	}
	before := r.keys
	if err := r.saveKeys(); err != nil {
		return // grant has said so
	}
	if err := r.snapshot.rekey(keep); err != nil {
		r.note(err)
		return
	}
	r.keys = keep
	if err := r.saveKeys(); err != nil {
		r.keys = before
		r.logger.Error("a key that is not granted any more stays", "error", err)
		return
	}
	crash.Point(crash.KeysDropped)
	r.logger.Info("keys of the group that nothing needs any more are dropped", "dropped", len(before)-len(keep))
	r.kick()
}

func hasKey(keys []*seal.PrivateKey, id seal.KeyID) bool {
	return slices.ContainsFunc(keys, func(k *seal.PrivateKey) bool { return k.Public().ID() == id })
}
