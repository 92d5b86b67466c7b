// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"sync"
	"sync/atomic"
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
	// Built by writers, who hold mu, and read by handshakes, who hold nothing.
	names    index                      // what is served under a name, see keyOf
	clients  index                      // by id, those that clients may use
	ids      index                      // by id, all
	fallback atomic.Pointer[generation] // of defaultID; nil if there is none for servers
	count    atomic.Int64

	challenges atomic.Pointer[map[string]*tls.Certificate] // by server name; nil before the first

	observers atomic.Pointer[[]*observer]
	unknowns  limiter

	conns    conns
	sessions atomic.Pointer[sessions] // of servers; nil until first needed
	identity atomic.Uint64            // counts changes of what clients may show

	mu        sync.Mutex // makes changes one after the other
	defaultID string
	seq       int64
	sources   map[string]map[string]*tls.Certificate // of challenges
}

// Put checks cert and makes it the certificate of id, of 1 to 255 bytes, in place of
// the one before. An error wraps one of the Err variables of this package, or is that
// of the parser; what was served stays served then.
//
// cert.Certificate may be in any order and hold duplicates: it is served in order,
// each once, and with the root if that is there. cert.Leaf is set by the Store. The
// key must be a [crypto.Signer], which need not be in memory. The Store keeps what
// cert refers to: do not change it afterwards.
//
// A leaf without DNS names and IP addresses is accepted if it has a URI, as those of
// SPIFFE have, or if servers may not use it. No server name leads to it: it is for
// clients, or the default.
func (s *Store) Put(id string, cert tls.Certificate) error {
	if err := s.put(id, cert); err != nil {
		return s.refuse("putting", id, err)
	}
	return nil
}

// PutPEM is [Store.Put] of PEM blocks. chain holds CERTIFICATE blocks; key holds
// one private key in PKCS #8 (PRIVATE KEY), PKCS #1 (RSA PRIVATE KEY) or SEC 1
// (EC PRIVATE KEY) form, not encrypted. Blocks of other types are skipped, so one
// file with everything can be given as both. Both together have at most 256 KiB.
func (s *Store) PutPEM(id string, chain, key []byte) error {
	cert, err := parsePEM(chain, key)
	if err != nil {
		return s.refuse("putting", id, err)
	}
	return s.Put(id, cert)
}

// PutDER is [Store.Put] of DER: X.509 certificates, and a private key in PKCS #8
// form. All together have at most 256 KiB.
func (s *Store) PutDER(id string, chain [][]byte, pkcs8 []byte) error {
	cert, err := parseDER(chain, pkcs8)
	if err != nil {
		return s.refuse("putting", id, err)
	}
	return s.Put(id, cert)
}

func (s *Store) put(id string, cert tls.Certificate) error {
	if err := checkID(id); err != nil {
		return err
	}
	checked, chain, err := check(cert)
	if err != nil {
		return err
	}
	now := time.Now()
	if err := checkTime(chain, now); err != nil {
		return err
	}
	g := newGeneration(id, checked, keysOf(checked.Leaf), now.UnixMicro())

	s.mu.Lock()
	defer s.mu.Unlock()
	s.number(g)
	s.exchange(s.current(id), g)
	s.tell(Event{Kind: Swapped, ID: id})
	return nil
}

// Remove removes the certificate of id and reports whether there was one. Its
// names fall back to what remains: other certificates that cover them, a wildcard,
// the default.
func (s *Store) Remove(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.current(id)
	if out == nil {
		return false
	}
	s.exchange(out, nil)
	s.tell(Event{Kind: Removed, ID: id})
	return true
}

// SetDefault makes the certificate of id answer handshakes that nothing else
// fits. There need not be one yet: whatever is the certificate of id at the time
// of the handshake is used. "" means none, which is how a Store begins: handshakes
// that nothing fits are refused.
func (s *Store) SetDefault(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.defaultID = id
	s.setFallback(s.current(id))
}

// ServerConfig returns a new config for a server with the certificates of s: TLS
// 1.2 and later, HTTP/2 and HTTP/1.1. It is the caller's to change; set NextProtos
// where something other than HTTP is served, and CipherSuites to nil for clients of TLS
// 1.2 that know no suite of authenticated encryption (RFC 9325, section 4.2). Its GetConfigForClient answers challenges
// of CAs, see [Store.SetChallenges]: without it they are not answered.
//
// Session tickets are sealed with keys of s, which [Store.Compromised] replaces, and are
// good for this config and its clones. Keys set by [tls.Config.SetSessionTicketKeys] are
// not used.
func (s *Store) ServerConfig() *tls.Config {
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		CipherSuites:       authenticated(),
		NextProtos:         []string{"h2", "http/1.1"},
		GetCertificate:     s.GetCertificate,
		GetConfigForClient: s.configFor,
	}
	own := newMark()
	limit(config, &own, s.session)
	return config
}

// authenticated are the suites of TLS 1.2 with forward secrecy and authenticated
// encryption; those of TLS 1.3 all are.
func authenticated() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

// current returns the generation of id, or nil.
func (s *Store) current(id string) *generation {
	return s.ids.first(id)
}

// number makes g the latest put. The caller holds mu.
func (s *Store) number(g *generation) {
	s.seq++
	g.seq = s.seq
}

// exchange takes out out of all indexes and puts in in its place; they are of one id,
// and either may be nil. Names that both have go from one to the other in one step, and
// new ones come before old ones go. The caller holds mu.
func (s *Store) exchange(out, in *generation) {
	if in != nil && in.server {
		for _, key := range in.keys {
			s.names.swap(key, out, in)
		}
	}
	if out != nil {
		for _, key := range out.keys {
			s.names.swap(key, out, nil)
		}
	}
	id, client := "", in
	switch {
	case in == nil:
		id = out.id
		s.count.Add(-1)
	case out == nil:
		id = in.id
		s.count.Add(1)
	default:
		id = in.id
	}
	if in != nil && !in.client {
		client = nil
	}
	s.clients.swap(id, out, client)
	if client != nil || out != nil && out.client {
		// After the swap: what a handshake shows must not be older than its sessions.
		s.identity.Add(1)
	}
	s.ids.swap(id, out, in)
	if id == s.defaultID {
		s.setFallback(in)
	}
}

func (s *Store) setFallback(g *generation) {
	if g != nil && !g.server {
		g = nil
	}
	s.fallback.Store(g)
}
