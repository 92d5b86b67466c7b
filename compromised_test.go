// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"testing"

	"github.com/keyturn/keyturn"
)

// Compromised cuts at once what uses any certificate of the id, or may do so, and ends
// its sessions.
func TestCompromised(t *testing.T) {
	for version, highest := range versions {
		for _, trusting := range []bool{false, true} {
			bubble(t, version, func(s *stage) {
				if trusting {
					s.server = new(keyturn.Trust).ServerConfig(s.server)
				}
				s.client.MaxVersion = highest
				s.put("id", "a.test")
				s.put("other", "b.test")
				old := s.connect()
				s.resumes()
				resumed := s.connect()
				second := s.put("id", "a.test")
				s.client.ServerName = "b.test"
				other := s.connect()
				s.client.ServerName = "a.test"
				_, silent := s.dial()

				if got := s.store.Compromised("id"); got != 3 || old.open() || resumed.open() || !other.open() {
					s.Errorf("cut %d, want the old one, the resumed one, and the one without a handshake", got)
				}
				if !resumed.resumed {
					s.Error("no session was resumed before")
				}
				if _, err := silent.Read(make([]byte, 1)); err == nil {
					s.Error("the connection without a handshake is open")
				}
				if l := s.connect(); l.resumed || !l.is(second) {
					s.Error("a session of before was resumed")
				}
				if l := s.connect(); !l.resumed {
					s.Error("no session is resumed any more")
				}
			})
		}
	}
}

// A compromised client resumes nothing either: the server would take it for what it was.
func TestCompromisedClient(t *testing.T) {
	for version, highest := range versions {
		bubble(t, version, func(s *stage) {
			s.put("server", "a.test")
			s.peer = new(keyturn.Store)
			put(s, s.peer, "id", s.root.leaf(s, names("client.test")))
			s.client.MaxVersion, s.client.ClientSessionCache = highest, tls.NewLRUClientSessionCache(0)
			s.client = s.peer.ClientConfig(s.client)
			s.server.ClientAuth, s.server.ClientCAs = tls.RequireAndVerifyClientCert, s.root.pool()
			s.connect()
			l := s.connect()
			if !l.resumed {
				s.Error("no session was resumed before")
			}
			if got := s.peer.Compromised("id"); got != 2 || l.open() {
				s.Errorf("cut %d, want both", got)
			}
			if s.connect().resumed {
				s.Error("a session of before was resumed")
			}
			if !s.connect().resumed {
				s.Error("no session is resumed any more")
			}
		})
	}
}
