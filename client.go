// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"cmp"
	"crypto/tls"
	"slices"
	"time"
)

// GetClientCertificate chooses the certificate that a client shows to a server.
// It is made for [tls.Config.GetClientCertificate].
//
// Of the certificates that clients may use, it takes one whose chain and key the
// server accepts (RFC 8446, sections 4.2.3 and 4.2.4), in the order: valid now,
// ECDSA or Ed25519 before RSA, obtained last. If there is none it returns a
// Certificate without content and no error: crypto/tls then shows none, and the
// server decides whether it goes on without.
//
// It looks at every certificate that clients may use, so give each destination a
// Store of its own rather than one Store the certificates of many.
func (s *Store) GetClientCertificate(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
choose:
	for {
		for _, g := range s.clientsInOrder() {
			if g.lazy != nil {
				s.open(g)
				continue choose // something changed
			}
			if request.SupportsCertificate(g.cert) == nil {
				return g.cert, nil
			}
		}
		return &tls.Certificate{}, nil
	}
}

// ClientConfig returns a copy of base, nil being a zero config, for a client that shows
// the certificates of s. It is the caller's to change. If base caches sessions, none is
// resumed that was made before a change of the certificates that clients may use:
// the server would take the client for the one it was. With TLS 1.3 a session is made
// when its ticket comes, along with the first data that is read; that of a connection
// from before the change is left out all the same under [Trust.Dialer]. The cache must not
// be that of another Store too.
func (s *Store) ClientConfig(base *tls.Config) *tls.Config {
	config := base.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	config.GetClientCertificate = s.GetClientCertificate
	if config.ClientSessionCache != nil {
		config.ClientSessionCache = &sessionCache{config.ClientSessionCache, s.identity.Load}
	}
	return config
}

func (s *Store) clientsInOrder() []*generation {
	var gens []*generation
	for set := range s.clients.all() {
		gens = append(gens, set.gen)
	}
	now := time.Now().Unix()
	invalid := func(g *generation) int {
		if g.valid(now) {
			return 0
		}
		return 1
	}
	slices.SortFunc(gens, func(a, b *generation) int {
		return cmp.Or(cmp.Compare(invalid(a), invalid(b)), preference(a, b))
	})
	return gens
}
