// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"crypto/x509"
	"iter"
	"math"
	"time"
)

// Info describes a certificate in a [Store].
type Info struct {
	ID string

	// Names are what the certificate is found by in GetCertificate: DNS names,
	// wildcards and IP addresses, normalised. Empty if it is for clients only.
	Names []string

	NotBefore, NotAfter time.Time // of the leaf, or as loaded if not open
	Obtained            time.Time // when it was put, or as loaded
	KeyType             x509.PublicKeyAlgorithm

	Server, Client bool // which sides it may be used for
	Open           bool // false: loaded as a [Lazy] and not needed yet
}

// Info describes the certificate of id without opening it, and reports whether
// there is one.
func (s *Store) Info(id string) (Info, bool) {
	g := s.current(id)
	if g == nil {
		return Info{}, false
	}
	return g.info(), true
}

// Get returns the certificate of id, opening it if need be, and whether there is
// one. It must not be changed.
func (s *Store) Get(id string) (*tls.Certificate, bool) {
	for {
		g := s.current(id)
		switch {
		case g == nil:
			return nil, false
		case g.lazy == nil:
			return g.cert, true
		}
		s.open(g)
	}
}

// All returns the ids and what is held under them, in no order, without opening
// anything. What changes during the iteration may be seen or not; everything else
// is seen once.
func (s *Store) All() iter.Seq2[string, Info] {
	return func(yield func(string, Info) bool) {
		for set := range s.ids.all() {
			if !yield(set.gen.id, set.gen.info()) {
				return
			}
		}
	}
}

// Len returns the number of ids.
func (s *Store) Len() int { return int(s.count.Load()) }

func (g *generation) info() Info {
	i := Info{
		ID:        g.id,
		NotBefore: time.Unix(g.notBefore, 0).UTC(),
		NotAfter:  time.Unix(g.notAfter, 0).UTC(),
		Obtained:  time.UnixMicro(g.obtained).UTC(),
		KeyType:   x509.PublicKeyAlgorithm(g.keyType),
		Server:    g.server,
		Client:    g.client,
		Open:      g.lazy == nil,
	}
	if g.notAfter == math.MaxInt64 {
		i.NotAfter = time.Time{}
	}
	if g.server {
		for _, key := range g.keys {
			i.Names = append(i.Names, nameOf(key))
		}
	}
	return i
}
