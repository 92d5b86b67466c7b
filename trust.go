// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// A Trust says which peers a listener or a destination believes, and changes while
// connections are made: every handshake that starts after a Set method returned goes by
// the new settings, also one that resumes a session, with TLS 1.2 and 1.3. Connections
// that are open stay; [Store.DrainAll] ends them.
//
// Its zero value is ready to use: a server asks for no client certificate, a client
// trusts the system's roots and expects the name that it connects to. All methods may be
// called at once from any goroutine. It must not be copied after first use. Use one for
// each listener and each destination.
//
// See [Trust.ServerConfig] for servers, and [Trust.ClientConfig] and [Trust.Dialer] for
// clients.
type Trust struct {
	current atomic.Pointer[settings] // nil: those of the zero value
	era     atomic.Uint64            // counts the changes after which clients resume nothing
	warn    sync.Once

	mu sync.Mutex // makes changes one after the other
}

// settings are what a Trust says at one time. They do not change.
type settings struct {
	clientCAs, rootCAs *x509.CertPool
	clientAuth         tls.ClientAuthType
	serverName         string
	peers              []peerName
	insecure           bool

	sessions *sessions // that a server may resume
	refuse   error     // why a server can make no handshake; nil if it can
}

// zero is what a Trust says that was never set, but for its sessions.
var zero settings

func (t *Trust) load() *settings {
	if s := t.current.Load(); s != nil {
		return s
	}
	return &zero
}

// change makes one change to what servers or clients, or both, go by: these resume no
// session from before it.
func (t *Trust) change(server, client bool, do func(*settings)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.load()
	do(&next)
	if server || next.sessions == nil {
		next.sessions = newSessions()
	}
	next.refuse = next.problem()
	t.current.Store(&next)
	if client {
		t.era.Add(1)
	}
}

// problem returns why no handshake can be made with a client.
func (s *settings) problem() error {
	switch s.clientAuth {
	case tls.NoClientCert, tls.RequestClientCert, tls.RequireAnyClientCert:
		return nil
	case tls.VerifyClientCertIfGiven, tls.RequireAndVerifyClientCert:
		// crypto/tls would take the system's roots for nil.
		if s.clientCAs == nil || s.clientCAs.Equal(x509.NewCertPool()) {
			return fmt.Errorf("keyturn: verifying clients: %w; set them with SetClientCAs", ErrNoClientCAs)
		}
		return nil
	}
	return fmt.Errorf("keyturn: verifying clients: %w: %d", ErrClientAuth, int(s.clientAuth))
}

// SetClientCAs sets the authorities that a server's clients are verified with, by the
// modes [tls.VerifyClientCertIfGiven] and [tls.RequireAndVerifyClientCert]. With nil or
// an empty pool these modes refuse every handshake with [ErrNoClientCAs]; they never
// fall back to the system's roots. The pool is copied. No session from before is
// resumed.
func (t *Trust) SetClientCAs(pool *x509.CertPool) {
	t.change(true, false, func(s *settings) { s.clientCAs = clone(pool) })
}

// ClientCAs returns a copy of what SetClientCAs set, or nil.
func (t *Trust) ClientCAs() *x509.CertPool { return clone(t.load().clientCAs) }

// SetRootCAs sets the authorities that a client's servers are verified with. Nil means
// the system's; with an empty pool no server is believed. The pool is copied. No
// session from before is resumed.
func (t *Trust) SetRootCAs(pool *x509.CertPool) {
	t.change(false, true, func(s *settings) { s.rootCAs = clone(pool) })
}

// RootCAs returns a copy of what SetRootCAs set; nil means the system's.
func (t *Trust) RootCAs() *x509.CertPool { return clone(t.load().rootCAs) }

// SetClientAuth sets whether a server asks its clients for a certificate, and what it
// makes of it; [tls.NoClientCert] is the zero value. With a mode that does not exist
// every handshake is refused with [ErrClientAuth]. No session from before is resumed.
func (t *Trust) SetClientAuth(mode tls.ClientAuthType) {
	t.change(true, false, func(s *settings) { s.clientAuth = mode })
}

// ClientAuth returns what SetClientAuth set.
func (t *Trust) ClientAuth() tls.ClientAuthType { return t.load().clientAuth }

// SetServerName sets the name that a client's server must have: a DNS name, an IP
// address, or a URI, as a SPIFFE id is one. It goes before the name given to
// [Trust.ClientConfig] and the one that is connected to; "" leaves it to these.
//
// The server name that is sent (SNI) follows with [Trust.Dialer] only: a config of
// ClientConfig goes on sending what it was made with.
func (t *Trust) SetServerName(name string) {
	t.change(false, true, func(s *settings) { s.serverName = name })
}

// ServerName returns what SetServerName set.
func (t *Trust) ServerName() string { return t.load().serverName }

// SetInsecureSkipVerify makes clients believe any server, whatever its certificate:
// anyone on the way can read and change everything. It is for development, logs a warning
// the first time, and does not concern what a server asks of its clients.
func (t *Trust) SetInsecureSkipVerify(skip bool) {
	t.change(false, true, func(s *settings) { s.insecure = skip })
	if skip {
		t.warn.Do(func() {
			slog.Warn("keyturn: InsecureSkipVerify is set: servers are not verified, and anyone on the way can pose as them; use it for development only")
		})
	}
}

// InsecureSkipVerify returns what SetInsecureSkipVerify set.
func (t *Trust) InsecureSkipVerify() bool { return t.load().insecure }

// SetPeerNames limits whom a server and a client believe, beyond what the authorities
// vouch for, to peers that have one of the names. Each is one of
//
//   - a DNS name, or with "*" for its first label, any name in its place:
//     "db.internal", "*.internal";
//   - an IP address: "192.0.2.1";
//   - a URI, where "*" in place of a part of the path is any one part, and "/*" at
//     its end is any URI below: "spiffe://example.org/web",
//     "spiffe://example.org/ns/*/sa/web", "spiffe://example.org/ns/prod/*".
//
// A SPIFFE ID, which is a URI with the scheme "spiffe", is compared as its standards say: of
// the trust domain, in lower case, to the last byte, without a port, and only if it is the
// certificate's one URI.
//
// They are looked for in the subject alternative names of the peer's certificate; the
// common name does not count. No names at all means no limit. An error says which
// one is wrong, and nothing changes then.
//
// A server whose mode does not ask for a certificate, or a client that has shown none
// where it need not, is not limited: that is [Trust.SetClientAuth]'s to say. A
// certificate that the mode does not verify is refused, since anyone can have made it.
func (t *Trust) SetPeerNames(names ...string) error {
	peers, err := parsePeerNames(names)
	if err != nil {
		return fmt.Errorf("keyturn: setting the names of peers: %w", err)
	}
	t.change(true, true, func(s *settings) { s.peers = peers })
	return nil
}

// PeerNames returns what SetPeerNames set.
func (t *Trust) PeerNames() []string {
	var names []string
	for _, p := range t.load().peers {
		names = append(names, p.text)
	}
	return names
}

func clone(pool *x509.CertPool) *x509.CertPool {
	if pool == nil {
		return nil
	}
	return pool.Clone()
}
