// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// A Lazy is a certificate that is not parsed, and whose key is not opened, before
// a handshake needs it: the way to hold very many. See [Store.Load].
type Lazy struct {
	// Names are what the certificate is found by: DNS names (A-labels, any case),
	// wildcards like "*.example.com", and IP addresses. The certificate must cover
	// each of them. At most 1000. Nil is for client certificates and for the
	// default: no server name leads to it.
	Names []string

	// NotBefore and NotAfter bound the validity of the certificate, for the choice
	// among several before it is opened. Zero means unbounded.
	NotBefore, NotAfter time.Time

	// Obtained says how new the certificate is, for the choice among several. Zero
	// is older than everything else.
	Obtained time.Time

	// KeyType is the kind of its key, for the choice among several before it is
	// opened. Unknown counts as ECDSA.
	KeyType x509.PublicKeyAlgorithm

	// Client makes GetClientCertificate consider the certificate, which must then
	// allow the use by TLS clients. If false, only servers use it.
	Client bool

	// Open parses the certificate and opens its key. It is called at most once, in
	// the first handshake that needs it, while others that need it wait: it should
	// take no longer than a handshake may. It must not ask the Store for the very
	// certificate that it opens. Required.
	Open func() (tls.Certificate, error)
}

// Load makes l the certificate of id, in place of the one before, without opening
// it. An error means that l was refused for its names or for having no Open; what
// was served stays served then.
//
// The first handshake that needs the certificate opens it and checks it as
// [Store.Put] does, with one difference: it may have expired, or not be valid yet.
// It is served nevertheless if there is no better one: after a restart from a
// snapshot, an expired certificate is better than none. If it is bad, observers
// hear of it and what it replaced serves again, in that very handshake.
func (s *Store) Load(id string, l Lazy) error {
	g, err := l.generation(id)
	if err != nil {
		return s.refuse("loading", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.current(id)
	g.lazy.prev = out
	if out != nil {
		out.forgetMiddle()
	}
	s.number(g)
	s.exchange(out, g)
	s.tell(Event{Kind: Swapped, ID: id})
	return nil
}

// A lazy is what is known of a generation before it is opened, and what came of that.
type lazy struct {
	once sync.Once
	load func() (tls.Certificate, error) // nil after once
	next *generation                     // what is to take the place
	err  error                           // or why nothing is

	prev *generation // what was replaced; guarded by Store.mu
}

func (l *Lazy) generation(id string) (*generation, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	switch {
	case l.Open == nil:
		return nil, errNoOpen
	case len(l.Names) > maxNames:
		return nil, fmt.Errorf("%w: %d names, at most %d are allowed", ErrTooLarge, len(l.Names), maxNames)
	}
	keys, err := keysOfNames(l.Names)
	if err != nil {
		return nil, err
	}
	g := &generation{
		id:        id,
		lazy:      &lazy{load: l.Open},
		keys:      keys,
		obtained:  l.Obtained.UnixMicro(),
		notBefore: l.NotBefore.Unix(),
		notAfter:  math.MaxInt64,
		keyType:   uint8(l.KeyType),
		server:    true,
		client:    l.Client,
	}
	if !l.NotAfter.IsZero() {
		g.notAfter = l.NotAfter.Unix()
	}
	g.alone.gen = g
	return g, nil
}

// forgetMiddle bounds what a generation that is never opened keeps behind it: the one
// before it, and the last one that was good or, failing that, the oldest.
func (g *generation) forgetMiddle() {
	if g.lazy == nil {
		return
	}
	if p := g.lazy.prev; p != nil && p.lazy != nil && p.lazy.prev != nil {
		g.lazy.prev = p.lazy.prev
	}
}

// open opens g, unless that was done before, and puts what came of it in its place.
// After that g is in no index.
func (s *Store) open(g *generation) {
	l := g.lazy
	l.once.Do(func() {
		load := l.load
		l.load, l.err = nil, errPanicked // stands if load does not return
		l.next, l.err = g.opened(load())
	})

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current(g.id) != g {
		return // another handshake was faster, or it was replaced meanwhile
	}
	if l.err != nil {
		s.exchange(g, l.prev)
		s.tell(Event{Kind: OpenFailed, ID: g.id, Err: failed("opening", g.id, l.err)})
		return
	}
	s.exchange(g, l.next)
	s.tell(Event{Kind: Opened, ID: g.id})
}

// opened returns the generation to take g's place.
func (g *generation) opened(cert tls.Certificate, err error) (*generation, error) {
	if err != nil {
		return nil, err
	}
	checked, _, err := check(cert)
	if err != nil {
		return nil, err
	}
	leaf := checked.Leaf
	next := newGeneration(g.id, checked, g.keys, g.obtained)
	next.seq = g.seq
	if g.client && !next.client || !next.server && (!g.client || len(g.keys) > 0) {
		return nil, fmt.Errorf("%w: %s does not allow what it was loaded for", ErrWrongUsage, describe(leaf))
	}
	next.client = g.client
	own := keysOf(leaf)
	for _, key := range g.keys {
		if name := nameOf(key); !slices.Contains(own, key) && leaf.VerifyHostname(name) != nil {
			return nil, fmt.Errorf("%w: %s was loaded for %q", ErrUncovered, describe(leaf), name)
		}
	}
	return next, nil
}
