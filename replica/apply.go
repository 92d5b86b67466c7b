// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// maxLogged bounds the memory of which refusals were logged.
const maxLogged = 1000

// A pending event is good but for its time: its certificate is not valid yet
// by this machine's clock. The timer tries again.
type pending struct {
	version event.Version
	timer   *time.Timer
}

// maxPending is the longest wait before a pending event is tried again: clocks
// are set, so that a far future may come soon.
const maxPending = time.Minute

// take takes an update and moves the position, whatever became of it.
func (r *Replica) take(u bus.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.position
	r.position = u.Position
	if u.CaughtUp {
		r.status.Following, r.status.LastError = true, nil
		r.note(r.snapshot.mark())
		select {
		case <-r.caughtUp:
		default:
			close(r.caughtUp)
		}
		r.complete()
		r.kick()
		return
	}
	if r.applyLocked(u.Entry) {
		delete(r.unresolved, u.Key)
	} else {
		r.unresolve(u.Entry, before)
	}
	r.yielded(u.Entry)
	r.reached()
}

// note reports a snapshot that could not be written. The store is not
// concerned, and the next write tries again with everything.
func (r *Replica) note(err error) {
	if err != nil {
		r.status.SnapshotErrors++
		r.logger.Error("the snapshot could not be written: after a restart without the bus, older certificates would be served", "error", err)
	}
}

// applyLocked verifies an entry and applies it, or refuses it. It reports
// whether that is final: false means that the same entry may be applied later.
func (r *Replica) applyLocked(entry bus.Entry) (final bool) {
	if !bus.InScope(entry.Key, event.GroupScope(r.group)) {
		r.refuse(entry.Key, RefusedMoved, errors.New("it is not of this group"))
		return true
	}
	e, err := event.Open(r.managers, r.tenant, entry.Key, entry.Data)
	if err != nil {
		reason := reasonOf(err)
		r.refuse(entry.Key, reason, err)
		return reason != RefusedSigner && reason != RefusedUnsupported
	}
	switch b := e.Body.(type) {
	case nil: // a type of a newer version
		r.refuse(entry.Key, RefusedUnsupported, event.ErrUnsupported)
		return false
	case *event.Certificate:
		return !r.newer(b.ID, b.Version, entry) || r.certificate(b, e.Time, entry)
	case *event.Removal:
		if r.newer(b.ID, b.Version, entry) {
			r.remove(b, e.Time, entry)
		}
	default:
		r.refuse(entry.Key, RefusedMalformed, fmt.Errorf("a %T in a group's scope", b))
	}
	return true
}

// newer reports whether the version may be applied. What is held already comes
// again whenever the bus is followed from an older place, and is no replay.
// Neither is the same, signed anew because another manager's key is trusted no
// more.
func (r *Replica) newer(id string, v event.Version, entry bus.Entry) bool {
	h := r.held[id]
	switch {
	case h == nil || h.version.Less(v):
		return true
	case h.version == v && bytes.Equal(h.data, entry.Data):
		delete(r.failures, id)
	case h.version == v && event.Same(h.data, entry.Data):
		delete(r.failures, id)
		r.replace(id, h, entry)
	default:
		r.refuse(entry.Key, RefusedReplay, fmt.Errorf("version %s is not above %s, which is held", v, h.version))
	}
	return false
}

// certificate reports whether it is live.
func (r *Replica) certificate(c *event.Certificate, signed time.Time, entry bus.Entry) bool {
	received := r.received(entry)
	key, err := c.OpenKey(r.tenant, r.keys)
	if err != nil {
		r.refuse(entry.Key, RefusedKey, err)
		r.fail(c.ID, c.Version, err)
		return false
	}
	pair, err := parsePair(c, key)
	if err != nil {
		r.refuse(entry.Key, RefusedCertificate, err)
		r.fail(c.ID, c.Version, err)
		return false
	}
	previous := r.leafInUse(c.ID)
	switch err := r.store.Put(c.ID, pair); {
	case errors.Is(err, keyturn.ErrNotYetValid):
		r.later(c, entry)
		r.fail(c.ID, c.Version, err)
		return false
	case err != nil:
		r.refuse(entry.Key, RefusedCertificate, err)
		r.fail(c.ID, c.Version, err)
		return false
	}
	delete(r.unresolved, entry.Key) // before the snapshot notes where to resume
	h := &held{version: c.Version, data: entry.Data, at: received, served: time.Now(), lag: received.Sub(signed)}
	h.describe(c)
	r.hold(c.ID, h, key, entry.Position)
	r.status.Applied++
	r.logger.Info("certificate is live", "managed_id", c.ID, "version", c.Version.String(), "names", c.Names, "not_after", c.NotAfter)
	r.changed(Change{ID: c.ID, Version: c.Version, Leaf: r.leafInUse(c.ID), Previous: previous})
	return true
}

// leafInUse returns the leaf that the store holds under the id.
func (r *Replica) leafInUse(id string) *x509.Certificate {
	if info, ok := r.store.Info(id); !ok || !info.Open {
		return nil
	}
	if cert, ok := r.store.Get(id); ok {
		return cert.Leaf
	}
	return nil
}

func (r *Replica) remove(b *event.Removal, signed time.Time, entry bus.Entry) {
	received := r.received(entry)
	r.store.Remove(b.ID)
	delete(r.unresolved, entry.Key) // before the snapshot notes where to resume
	r.hold(b.ID, &held{version: b.Version, removed: true, data: entry.Data, at: received, lag: received.Sub(signed)}, nil, entry.Position)
	r.status.Removed++
	r.logger.Info("certificate is removed", "managed_id", b.ID, "version", b.Version.String())
	r.changed(Change{ID: b.ID, Version: b.Version})
}

// hold makes h what is held of the id, in memory and in the snapshot.
func (r *Replica) hold(id string, h *held, key []byte, at bus.Position) {
	if p, ok := r.pending[id]; ok {
		p.timer.Stop()
		delete(r.pending, id)
	}
	// During catch-up the mark that follows makes everything durable at once.
	sync := r.status.Following
	err := r.snapshot.add(id, h, key, sync)
	r.history.add(at, id, r.held[id])
	r.held[id] = h
	r.note(err)
	delete(r.failures, id)
	delete(r.proofs, id)
	r.dropKeys()
	r.kick()
}

// replace takes another signature of what is held.
func (r *Replica) replace(id string, old *held, entry bus.Entry) {
	key, err := r.openKey(old)
	if err != nil {
		r.note(err)
		return
	}
	h := *old
	h.data = entry.Data
	err = r.snapshot.add(id, &h, key, r.status.Following)
	r.held[id] = &h
	r.note(err)
}

func (r *Replica) changed(c Change) {
	if r.onChange != nil {
		r.onChange(c)
	}
}

// later keeps a certificate that is not valid yet and tries it again. What is
// served stays served until then.
func (r *Replica) later(c *event.Certificate, entry bus.Entry) {
	if p, ok := r.pending[c.ID]; ok {
		if c.Version.Less(p.version) {
			return
		}
		p.timer.Stop()
	}
	wait := min(max(time.Until(c.NotBefore), time.Second), maxPending)
	r.logger.Warn("certificate is not valid yet by this machine's clock; waiting", "managed_id", c.ID, "version", c.Version.String(), "not_before", c.NotBefore)
	r.pending[c.ID] = pending{c.Version, time.AfterFunc(wait, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p, ok := r.pending[c.ID]; ok && p.version == c.Version && !r.closed {
			r.applyLocked(entry)
		}
	})}
}

// parsePair joins chain and key; the store checks the rest.
func parsePair(c *event.Certificate, pkcs8 []byte) (tls.Certificate, error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the private key does not parse: %w", err)
	}
	return tls.Certificate{Certificate: c.Chain, PrivateKey: key}, nil
}

// lazyPair is parsePair for the first handshake that needs it.
func lazyPair(c *event.Certificate, unlock func() ([]byte, error)) func() (tls.Certificate, error) {
	return func() (tls.Certificate, error) {
		key, err := unlock()
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("opening the private key: %w", err)
		}
		return parsePair(c, key)
	}
}

// openKey returns the private key of what is held, nil after a removal.
func (r *Replica) openKey(h *held) ([]byte, error) {
	if h.key.aead != nil {
		return h.key.unlock()
	}
	e, err := event.Trusted(r.tenant, h.data)
	if err != nil {
		return nil, err
	}
	c, ok := e.Body.(*event.Certificate)
	if !ok {
		return nil, nil
	}
	return c.OpenKey(r.tenant, r.keys)
}

func reasonOf(err error) Reason {
	switch {
	case errors.Is(err, seal.ErrUnknownSigner):
		return RefusedSigner
	case errors.Is(err, seal.ErrSignature):
		return RefusedSignature
	case errors.Is(err, event.ErrMoved):
		return RefusedMoved
	case errors.Is(err, event.ErrUnsupported):
		return RefusedUnsupported
	case errors.Is(err, event.ErrOldManagers):
		return RefusedReplay
	}
	return RefusedMalformed
}

// idOf returns the id that a key of the group's scope is of.
func (r *Replica) idOf(key string) (string, bool) {
	id, ok := strings.CutPrefix(key, event.GroupScope(r.group)+"/")
	return id, ok && event.CheckID(id) == nil
}

// refuse counts, and logs each refusal of a key for a reason once.
func (r *Replica) refuse(key string, reason Reason, err error) {
	if r.status.Refused == nil {
		r.status.Refused = make(map[Reason]uint64)
	}
	r.status.Refused[reason]++
	if id, ok := r.idOf(key); ok && reason != RefusedReplay {
		r.fail(id, event.Version{}, err)
	}
	once := string(reason) + " " + key
	if r.logged[once] || len(r.logged) >= maxLogged {
		return
	}
	r.logged[once] = true
	r.logger.Error("an event on the bus is refused; what is served stays served", "key", key, "reason", string(reason), "error", err)
}
