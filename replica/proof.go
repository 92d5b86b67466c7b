// SPDX-License-Identifier: Apache-2.0

package replica

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/seal"
)

// What is held is proven when its private key was opened and its certificate checked, but
// for the time, which takes away nothing that is served.
// What takes the place of something is proven before. What a replica gets during
// catch-up, and has had nothing of before, is served at once, sealed as it is: the first
// handshake that needs it opens and checks it. As soon as all has been taken, one
// goroutine proves all of that, one after the other, and what turns out to be no good is
// refused then. A snapshot remembers what is proven.

// first reports whether a certificate may be served before it is proven: it comes during
// catch-up, nothing of it is held, and nothing that can be seen from outside is wrong.
func (r *Replica) first(c *event.Certificate) bool {
	now := time.Now()
	id, err := seal.Recipient(c.SealedKey)
	return !r.status.Following && r.held[c.ID] == nil && err == nil && hasKey(r.keys, id) &&
		!now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

// seal has a certificate served that is not proven, and reports whether it is.
func (r *Replica) seal(c *event.Certificate, signed time.Time, entry bus.Entry) bool {
	var leaf *x509.Certificate
	if r.onChange != nil {
		var err error
		if leaf, err = x509.ParseCertificate(c.Chain[0]); err != nil {
			return false
		}
	}
	h := r.holdable(c, signed, entry)
	if err := r.load(c.ID, lazy(c, signed), h); err != nil {
		return false
	}
	r.live(c, h, entry)
	r.unproven = append(r.unproven, c.ID)
	r.changed(Change{ID: c.ID, Version: c.Version, Leaf: leaf})
	return true
}

// load puts a certificate into the store, to be opened when it is needed.
func (r *Replica) load(id string, l keyturn.Lazy, h *held) error {
	l.Open = r.opener(h)
	return r.store.Load(id, l)
}

// lazy describes a certificate for the store.
func lazy(c *event.Certificate, signed time.Time) keyturn.Lazy {
	return keyturn.Lazy{
		Names: c.Names, NotBefore: c.NotBefore, NotAfter: c.NotAfter, Obtained: signed,
		KeyType: algorithm(c.Algorithm), Client: c.Client,
	}
}

// opener returns what opens a certificate that is held. That takes no lock: a handshake
// waits for it.
func (r *Replica) opener(h *held) func() (tls.Certificate, error) {
	i := slices.IndexFunc(r.keys, func(k *seal.PrivateKey) bool { return k.Public().ID() == h.sealed })
	if i < 0 {
		return func() (tls.Certificate, error) {
			return tls.Certificate{}, fmt.Errorf("opening the private key: %w: key %s", seal.ErrNoKey, h.sealed)
		}
	}
	key := r.keys[i]
	return func() (tls.Certificate, error) {
		data, err := h.text.Load().read()
		if err != nil {
			return tls.Certificate{}, err
		}
		e, err := event.Trusted(r.tenant, data)
		if err != nil {
			return tls.Certificate{}, err
		}
		c := e.Body.(*event.Certificate)
		pkcs8, err := c.OpenKey(r.tenant, []*seal.PrivateKey{key})
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("opening the private key: %w", err)
		}
		return parsePair(c, pkcs8)
	}
}

func algorithm(name string) x509.PublicKeyAlgorithm {
	for _, a := range []x509.PublicKeyAlgorithm{x509.RSA, x509.ECDSA, x509.Ed25519} {
		if a.String() == name {
			return a
		}
	}
	return x509.UnknownPublicKeyAlgorithm
}

// proveSoon says that what is not proven may be now.
func (r *Replica) proveSoon() {
	if len(r.unproven) == 0 {
		return
	}
	select {
	case r.proving <- struct{}{}:
	default:
	}
}

// prove proves, whenever proveSoon says so, what is not proven, until ctx ends.
func (r *Replica) prove(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.proving:
		}
		for ctx.Err() == nil && r.proveNext() {
		}
	}
}

// proveNext proves one, and reports whether there may be more. It holds mu only before
// and after.
func (r *Replica) proveNext() bool {
	id, h, e := r.nextUnproven()
	if h == nil {
		return false
	}
	good := r.good(e, h)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.held[id] != h: // it was replaced meanwhile
	case good:
		h.proven = true
	default:
		r.withdraw(id, h, e)
	}
	return true
}

// nextUnproven returns nil where there is none, once that is written down.
func (r *Replica) nextUnproven() (string, *held, *event.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.unproven) == 0 {
		return "", nil, nil
	}
	for ; len(r.unproven) > 0; r.unproven = r.unproven[1:] {
		id := r.unproven[0]
		h := r.held[id]
		if h == nil || h.proven {
			continue
		}
		if e, err := event.Trusted(r.tenant, r.event(id, h)); err == nil {
			return id, h, e
		}
	}
	r.unproven = nil
	r.note(r.snapshot.mark(recordProven))
	r.kick()
	return "", nil, nil
}

// good opens a certificate as the first handshake that needs it does.
func (r *Replica) good(e *event.Event, h *held) bool {
	c := e.Body.(*event.Certificate)
	r.mu.Lock()
	l := lazy(c, e.Time)
	l.Open = r.opener(h)
	r.mu.Unlock()
	var store keyturn.Store // for this alone: what is open takes many times the memory
	if store.Load(c.ID, l) != nil {
		return false
	}
	_, ok := store.Get(c.ID)
	return ok
}

// withdraw takes what cannot be proven as if it came now: it is refused, for the reason
// that is found then, and not served any more.
func (r *Replica) withdraw(id string, h *held, e *event.Event) {
	data := r.event(id, h)
	if data == nil {
		return // nor can it be proven, then
	}
	entry := bus.Entry{Key: e.Key, Data: data, Position: r.position}
	if r.put(e.Body.(*event.Certificate), e.Time, entry) {
		return // what its event says of it was wrong, and all else is good
	}
	r.store.Remove(id)
	delete(r.held, id)
	r.snapshot.forget()
	r.unresolve(entry, bus.Position{})
	r.changed(Change{ID: id, Version: h.version})
}
