// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/crash"
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
func (r *Replica) take(u update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.position
	r.position = u.Position
	if u.CaughtUp {
		r.status.Following, r.status.LastError = true, nil
		r.dropKeys()
		r.note(r.snapshot.mark(recordMark))
		crash.Point(crash.CaughtUp)
		select {
		case <-r.caughtUp:
		default:
			close(r.caughtUp)
		}
		r.complete()
		r.kick()
		r.proveSoon()
		return
	}
	if r.applyLocked(u.Entry, u.opened) {
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

// applyLocked applies a verified entry, or refuses it. o is what was made of it
// before, if anything was: it counts for nothing once other managers are trusted. It
// reports whether that is final: false means that the same entry may be applied later.
func (r *Replica) applyLocked(entry bus.Entry, o *opened) (final bool) {
	if !bus.InScope(entry.Key, event.GroupScope(r.group)) {
		r.refuse(entry.Key, RefusedMoved, errors.New("it is not of this group"))
		return true
	}
	if o == nil || o.by != r.managers.Load() {
		o = r.open(entry)
	}
	if o.err != nil {
		reason := reasonOf(o.err)
		r.refuse(entry.Key, reason, o.err)
		return reason != RefusedSigner && reason != RefusedUnsupported
	}
	switch b := o.event.Body.(type) {
	case nil: // a type of a newer version
		r.refuse(entry.Key, RefusedUnsupported, event.ErrUnsupported)
		return false
	case *event.Certificate:
		return !r.newer(b.ID, b.Version, entry) || r.certificate(b, o.event.Time, entry)
	case *event.Removal:
		if r.newer(b.ID, b.Version, entry) {
			r.remove(b, o.event.Time, entry)
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
	case h.version == v:
		if !h.lost && h.is(entry.Data) {
			r.has(id)
			return false
		}
		if data := r.event(id, h); data == nil || event.Same(data, entry.Data) {
			r.has(id)
			r.replace(id, h, entry)
			return false
		}
	}
	r.refuse(entry.Key, RefusedReplay, fmt.Errorf("version %s is not above %s, which is held", v, h.version))
	return false
}

// has notes that what is held is what the bus has: there is nothing newer that is not
// served, nor is it lost there any more.
func (r *Replica) has(id string) {
	delete(r.failures, id)
	delete(r.proofs, id)
}

// event returns the signed event of what is held, nil where it cannot be read any more.
// The bus is followed from its start then: it brings it again.
func (r *Replica) event(id string, h *held) []byte {
	data, err := h.text.Load().read()
	if err == nil {
		return data
	}
	h.lost = true
	r.logger.Error("what is held of a certificate cannot be read; it is served on where it is open, and asked for again", "managed_id", id, "error", err)
	if r.agrees == nil {
		r.followAgain(bus.Position{})
	}
	return nil
}

// certificate reports whether it is live.
func (r *Replica) certificate(c *event.Certificate, signed time.Time, entry bus.Entry) bool {
	return r.first(c) && r.seal(c, signed, entry) || r.put(c, signed, entry)
}

// put has a certificate served that is proven before.
func (r *Replica) put(c *event.Certificate, signed time.Time, entry bus.Entry) bool {
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
	h := r.holdable(c, signed, entry)
	h.proven = true
	r.live(c, h, entry)
	r.changed(Change{ID: c.ID, Version: c.Version, Leaf: r.leafInUse(c.ID), Previous: previous})
	return true
}

// holdable returns what is to be held of a certificate.
func (r *Replica) holdable(c *event.Certificate, signed time.Time, entry bus.Entry) *held {
	h := newHeld(c.Version, entry.Data)
	h.at, h.served = r.received(entry), time.Now()
	h.lag = h.at.Sub(signed)
	h.describe(c)
	return h
}

// live notes that a certificate is served.
func (r *Replica) live(c *event.Certificate, h *held, entry bus.Entry) {
	crash.Point(crash.Served)
	delete(r.unresolved, entry.Key) // before the snapshot notes where to resume
	r.hold(c.ID, h, entry.Position)
	r.status.Applied++
	r.logger.Info("certificate is live", "managed_id", c.ID, "version", c.Version.String(), "names", c.Names, "not_after", c.NotAfter)
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
	crash.Point(crash.Dropped)
	delete(r.unresolved, entry.Key) // before the snapshot notes where to resume
	h := newHeld(b.Version, entry.Data)
	h.removed, h.proven, h.at, h.lag = true, true, received, received.Sub(signed)
	r.hold(b.ID, h, entry.Position)
	r.status.Removed++
	r.logger.Info("certificate is removed", "managed_id", b.ID, "version", b.Version.String())
	r.changed(Change{ID: b.ID, Version: b.Version})
}

// hold makes h what is held of the id, in memory and in the snapshot.
func (r *Replica) hold(id string, h *held, at bus.Position) {
	if p, ok := r.pending[id]; ok {
		p.timer.Stop()
		delete(r.pending, id)
	}
	// During catch-up the mark that follows makes everything durable at once.
	sync := r.status.Following
	err := r.snapshot.add(id, h, sync)
	crash.Point(crash.Noted)
	r.history.add(at, id, r.held[id])
	r.held[id] = h
	r.note(err)
	r.has(id)
	if r.status.Following { // else when all is taken: it looks at everything that is held
		r.dropKeys()
	}
	r.kick()
}

// replace takes another signature of what is held.
func (r *Replica) replace(id string, old *held, entry bus.Entry) {
	h := newHeld(old.version, entry.Data)
	h.removed, h.proven, h.sealed, h.notAfter = old.removed, old.proven, old.sealed, old.notAfter
	h.at, h.served, h.lag = old.at, old.served, old.lag
	err := r.snapshot.add(id, h, r.status.Following)
	r.held[id] = h
	r.note(err)
	if !h.proven {
		r.unproven = append(r.unproven, id)
		r.proveSoon()
	}
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
			r.applyLocked(entry, nil)
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
