// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"iter"
	"maps"
	"sync"
	"time"
)

// A Store holds the live certificates of a process, or of one listener or one
// destination in it: use as many Stores as there are different answers.
//
// Its zero value is empty and ready to use. All methods may be called at once
// from any goroutine. It must not be copied after first use.
//
// A change is atomic per certificate: a handshake sees the whole certificate of
// before or the whole one of after, and every handshake that starts after the
// changing method returned sees the one of after. For a certificate with several
// names, handshakes that run at the same time as the change may already see it
// under one name and not yet under another.
type Store struct {
	mu  sync.Mutex
	ids map[string]*tls.Certificate
	def string
}

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

// Put checks cert and makes it the certificate of id, in place of the one before.
// An error wraps one of the Err variables of this package; what was served stays
// served then.
//
// cert.Certificate may be in any order and hold duplicates; they are put right. A
// root at its end is kept. cert.Leaf is set by the Store. The key must
// be a [crypto.Signer], which need not be in memory. The Store keeps what cert
// refers to: do not change it afterwards.
//
// A leaf without DNS names and IP addresses is accepted if it has a URI (SPIFFE,
// for instance) and allows the use by clients. No server name leads to it.
func (s *Store) Put(id string, cert tls.Certificate) error {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return err
	}
	cert.Leaf = leaf
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[string]*tls.Certificate{}
	}
	s.ids[id] = &cert
	return nil
}

// PutPEM is [Store.Put] of PEM blocks. chain holds CERTIFICATE blocks; key holds
// one private key in PKCS #8 (PRIVATE KEY), PKCS #1 (RSA PRIVATE KEY) or SEC 1
// (EC PRIVATE KEY) form, not encrypted. Blocks of other types are skipped, so one
// file with everything can be given as both. Both together have at most 256 KiB.
func (s *Store) PutPEM(id string, chain, key []byte) error {
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return err
	}
	return s.Put(id, cert)
}

// PutDER is [Store.Put] of DER: X.509 certificates, and a private key in PKCS #8
// form. All together have at most 256 KiB.
func (s *Store) PutDER(id string, chain [][]byte, pkcs8 []byte) error {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return err
	}
	return s.Put(id, tls.Certificate{Certificate: chain, PrivateKey: key})
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
	cert, err := l.Open()
	if err != nil {
		return err
	}
	return s.Put(id, cert)
}

// Remove removes the certificate of id and reports whether there was one. Its
// names fall back to what remains: other certificates that cover them, a wildcard,
// the default.
func (s *Store) Remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.ids[id]
	delete(s.ids, id)
	return ok
}

// Get returns the certificate of id, opening it if need be, and whether there is
// one. It must not be changed.
func (s *Store) Get(id string) (*tls.Certificate, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.ids[id]
	return c, ok
}

// Info describes the certificate of id without opening it, and reports whether
// there is one.
func (s *Store) Info(id string) (Info, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.ids[id]
	if !ok {
		return Info{}, false
	}
	return Info{ID: id, Names: c.Leaf.DNSNames, NotBefore: c.Leaf.NotBefore, NotAfter: c.Leaf.NotAfter, Open: true}, true
}

// All returns the ids and what is held under them, in no order, without opening
// anything. What changes during the iteration may be seen or not; everything else
// is seen once.
func (s *Store) All() iter.Seq2[string, Info] {
	return func(yield func(string, Info) bool) {
		s.mu.Lock()
		ids := maps.Clone(s.ids)
		s.mu.Unlock()
		for id := range ids {
			if i, ok := s.Info(id); ok && !yield(id, i) {
				return
			}
		}
	}
}

// Len returns the number of ids.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids)
}

// SetDefault makes the certificate of id answer handshakes that nothing else
// fits. There need not be one yet: whatever is the certificate of id at the time
// of the handshake is used. "" means none, which is how a Store begins: handshakes
// that nothing fits are refused.
func (s *Store) SetDefault(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.def = id
}

// GetCertificate chooses the certificate for a handshake, as the package
// documentation says under "Which certificate". It is made for
// [tls.Config.GetCertificate].
//
// If several cover the name and the client supports none of them, the one it would
// have been otherwise is returned, as crypto/tls does. If nothing fits, the error is
// an [*UnknownNameError]; certificate and error are never both nil.
func (s *Store) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.ids {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	if c := s.ids[s.def]; c != nil {
		return c, nil
	}
	return nil, &UnknownNameError{Name: hello.ServerName}
}

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
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.ids {
		if request.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return &tls.Certificate{}, nil
}

// ServerConfig returns a new config for a server with the certificates of s: TLS
// 1.2 and later, HTTP/2 and HTTP/1.1. It is the caller's to change; set NextProtos
// where something other than HTTP is served.
func (s *Store) ServerConfig() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: s.GetCertificate,
	}
}

var errNoOpen = errors.New("Open is nil")
