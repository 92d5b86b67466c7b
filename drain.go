// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"context"
	"net"
	"time"
)

// A DialFunc opens a connection, as [net.Dialer.DialContext] does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Listener returns inner with its connections known to s, so that [Store.Drain] and
// [Store.Compromised] can end them. It is for what is below TLS: give it to
// [net/http.Server.ServeTLS], to [crypto/tls.NewListener], or to a gRPC server that
// has credentials of s. Other wrappers go inside: of a connection that reaches TLS
// wrapped again it is not known which certificate it uses.
//
//	server := &http.Server{TLSConfig: store.ServerConfig(), ConnContext: keyturn.ConnContext}
//	err = server.ServeTLS(store.Listener(listener), "", "")
func (s *Store) Listener(inner net.Listener) net.Listener { return &listener{inner, s} }

// Dialer returns dial with its connections known to s, so that [Store.Drain] and
// [Store.Compromised] can end them; a nil dial is that of a zero [net.Dialer]. It is for
// what is below TLS, as the DialContext of [net/http.Transport].
//
// Which certificate a client showed is not known of a connection. It counts as old for
// [Store.Drain] if it was opened before the certificate was put, and where id is the only
// one in s. So give each destination a Store of its own.
func (s *Store) Dialer(dial DialFunc) DialFunc {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		inner, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return s.track(inner), nil
	}
}

// Drain ends the connections that still use a certificate that id had and has no more,
// so that their peers connect again: put the new one first. It returns when all of them
// have ended, which is after within at the latest, and says how many were open until
// then and were cut off. Only connections of [Store.Listener] and [Store.Dialer] are
// known.
//
// Until within has passed, connections are left to end by themselves, and [Draining]
// tells those who use them. An HTTP server does its part with a handler like this, which
// has HTTP/1.1 close after the answer, and HTTP/2 send GOAWAY (RFC 9113, section 6.8):
//
//	if keyturn.Draining(r.Context()) {
//		w.Header().Set("Connection", "close")
//	}
//
// Connections without requests are not told, and what a client sends at the moment of
// the cut fails, unless it tries again. So give the server an IdleTimeout shorter than
// within.
//
// A connection that resumed a session has seen no certificate. It counts as using the
// one that its server name leads to, if the config is one of [Trust.ServerConfig];
// with another config the name is not known, and it is ended only where id is, or was,
// the only one in s.
func (s *Store) Drain(id string, within time.Duration) (cut int) {
	return s.conns.end(within, s.old(id))
}

// DrainAll is [Store.Drain] for every connection that is open now, for when it is not
// the certificate that has changed but the trust in peers.
func (s *Store) DrainAll(within time.Duration) (cut int) {
	return s.conns.end(within, func(*conn) bool { return true })
}

// Compromised says that the private key of id, or one that id had, is known to others.
// It cuts off, at once, the connections that use any certificate of id, or that may do
// so because it is not known which they use, and says how many. No session is resumed
// any more that was made with a certificate of s, by configs of [Store.ServerConfig]
// and [Store.ClientConfig]. Peers connect again: put a new certificate first, and have
// the old one revoked.
//
// A handshake that is under way meanwhile, on a connection that s does not know, can
// end with a ticket that counts as made afterwards.
func (s *Store) Compromised(id string) (cut int) {
	s.sessions.Store(newSessions())
	s.identity.Add(1)
	return s.conns.end(0, func(c *conn) bool {
		g := c.gen.Load()
		return g == nil || g.id == id
	})
}

// old returns a function that reports whether a connection uses a certificate of id that
// was put before the one of now, or before now if there is none.
func (s *Store) old(id string) func(*conn) bool {
	s.mu.Lock()
	current, since := s.current(id), s.seq+1
	s.mu.Unlock()
	if current != nil {
		since = current.seq
	}
	return func(c *conn) bool {
		if g := c.gen.Load(); g != nil {
			// What replaced it may have been bad, when it was opened.
			return g.id == id && g.seq < since && g != s.current(id)
		}
		if c.since >= since {
			return false
		}
		// Of a client, or resumed, or its handshake has not come so far.
		if name := c.name.Load(); name != nil {
			return s.mayLead(*name, c, id)
		}
		return s.Len() == 0 || s.Len() == 1 && s.current(id) != nil
	}
}

// mayLead reports whether a server name, or without one the address that c was made to,
// leads to id, or to nothing any more.
func (s *Store) mayLead(name string, c *conn, id string) bool {
	var slot *slot
	if name != "" {
		slot = s.lookupName(name)
	} else {
		slot = s.lookupAddr(localAddr(c))
	}
	if slot != nil {
		for n := slot.set.Load(); n != nil; n = n.next {
			if n.gen.id == id {
				return true
			}
		}
		return false
	}
	g := s.fallback.Load()
	return g == nil || g.id == id
}
