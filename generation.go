// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"time"
)

// A generation is one certificate that an id has or had. It does not change once it
// is in an index; opening a lazy one puts another in its place.
type generation struct {
	id   string
	cert *tls.Certificate // nil if lazy is not
	lazy *lazy            // nil once opened

	keys []string // in Store.names, as keyOf makes them

	obtained  int64 // microseconds of Unix time
	notBefore int64 // seconds of Unix time
	notAfter  int64
	seq       int64 // order of putting, decides between equals

	keyType        uint8 // x509.PublicKeyAlgorithm
	server, client bool

	alone set // the set of this one only, so that it takes no allocation of its own
}

// newGeneration returns the generation for a certificate that was checked.
func newGeneration(id string, cert *tls.Certificate, keys []string, obtained int64) *generation {
	g := &generation{
		id:        id,
		cert:      cert,
		keys:      keys,
		obtained:  obtained,
		notBefore: cert.Leaf.NotBefore.Unix(),
		notAfter:  cert.Leaf.NotAfter.Unix(),
		keyType:   uint8(cert.Leaf.PublicKeyAlgorithm),
	}
	g.server, g.client = usage(cert.Leaf)
	g.alone.gen = g
	return g
}

func (g *generation) valid(now int64) bool { return g.notBefore <= now && now <= g.notAfter }

// preference orders generations apart from their validity: ECDSA and Ed25519, whose
// handshakes are cheaper, before RSA, then the newest.
func preference(a, b *generation) int {
	rsa := func(g *generation) int {
		if x509.PublicKeyAlgorithm(g.keyType) == x509.RSA {
			return 1
		}
		return 0
	}
	return cmp.Or(
		cmp.Compare(rsa(a), rsa(b)),
		cmp.Compare(b.obtained, a.obtained),
		cmp.Compare(b.seq, a.seq))
}

// A set is the generations under one key, best first as far as preference goes. It is
// an immutable list; nil is empty.
type set struct {
	gen  *generation
	next *set
}

// swap returns s without out and with in; either may be nil.
func (s *set) swap(out, in *generation) *set {
	switch {
	case in == nil && !s.has(out):
		return s
	case s == nil, s.next == nil && s.gen == out && in != nil:
		return &in.alone
	}
	var gens []*generation
	for n := s; n != nil; n = n.next {
		if n.gen == out {
			continue
		}
		if in != nil && preference(in, n.gen) < 0 {
			gens = append(gens, in)
			in = nil
		}
		gens = append(gens, n.gen)
	}
	if in != nil {
		gens = append(gens, in)
	}
	var list *set
	for i := len(gens) - 1; i >= 0; i-- {
		if list == nil {
			list = &gens[i].alone
		} else {
			list = &set{gens[i], list}
		}
	}
	return list
}

func (s *set) has(g *generation) bool {
	for n := s; n != nil; n = n.next {
		if n.gen == g {
			return true
		}
	}
	return false
}

// sole returns the certificate of s if no choice and no opening is needed.
func (s *set) sole() *tls.Certificate {
	if s == nil || s.next != nil {
		return nil
	}
	return s.gen.cert
}

// pick returns the generation for a handshake: supported by the client, valid now, and
// as preferred; the first that is valid if the client supports none. One that is not
// open yet is returned when it is its turn, as only opening tells if it is supported.
func (s *set) pick(hello *tls.ClientHelloInfo) *generation {
	if s.next == nil {
		return s.gen
	}
	now := time.Now().Unix()
	var first *generation
	for _, valid := range [...]bool{true, false} {
		for n := s; n != nil; n = n.next {
			g := n.gen
			switch {
			case g.valid(now) != valid:
				continue
			case g.lazy != nil, hello.SupportsCertificate(g.cert) == nil:
				return g
			case first == nil:
				first = g
			}
		}
	}
	return first
}
