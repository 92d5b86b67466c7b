// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn"
)

// Drain lets connections end, then cuts those that have not. Those that use another
// certificate, or were made after the change, go on.
func TestDrain(t *testing.T) {
	for version, highest := range versions {
		bubble(t, version, func(s *stage) {
			s.client.MaxVersion = highest
			first := s.put("id", "a.test")
			s.put("other", "b.test")
			idle, leaves := s.connect(), s.connect()
			s.client.ServerName = "b.test"
			other := s.connect()
			s.client.ServerName = "a.test"
			second := s.put("id", "a.test")
			fresh := s.connect()
			if !idle.is(first) || !fresh.is(second) {
				s.Fatal("wrong certificates were served")
			}

			cut := begun(func() int { return s.store.Drain("id", time.Minute) })
			for what, l := range map[string]*link{"old": idle, "old too": leaves, "other": other, "new": fresh} {
				if want := l == idle || l == leaves; keyturn.Draining(l.ctx) != want || !l.open() {
					s.Errorf("%s: Draining is not %t, or the connection is not open", what, want)
				}
			}
			leaves.client.Close()
			if got := <-cut; got != 1 || idle.open() {
				s.Errorf("cut %d, want the one that did not end by itself", got)
			}
			if !other.open() || !fresh.open() {
				s.Error("a connection was cut that does not use the old certificate")
			}
		})
	}
}

// Drain returns as soon as there is nothing to wait for.
func TestDrainReturns(t *testing.T) {
	bubble(t, "", func(s *stage) {
		s.put("id", "a.test")
		links := []*link{s.connect(), s.connect()}
		s.put("id", "a.test")
		cut := begun(func() int { return s.store.Drain("id", time.Hour) })
		for _, l := range links {
			l.client.Close()
		}
		synctest.Wait()
		select {
		case got := <-cut:
			if got != 0 {
				s.Errorf("cut %d that their users had closed", got)
			}
		default:
			s.Error("Drain waits, and no connection is left")
		}
	})
}

// Without time, old connections are cut at once, and each is counted once.
func TestDrainAtOnce(t *testing.T) {
	for name, within := range map[string]time.Duration{"zero": 0, "negative": -time.Hour} {
		bubble(t, name, func(s *stage) {
			s.put("id", "a.test")
			l := s.connect()
			if got := s.store.Drain("id", within); got != 0 || !l.open() {
				s.Errorf("cut %d that use the certificate of now", got)
			}
			s.put("id", "a.test")
			if got := s.store.Drain("unknown", within); got != 0 || !l.open() {
				s.Errorf("cut %d for an unknown id", got)
			}
			waiting := begun(func() int { return s.store.Drain("id", time.Hour) })
			if got := s.store.Drain("id", within); got != 1 || l.open() {
				s.Errorf("cut %d, want one", got)
			}
			if got := <-waiting; got != 0 {
				s.Errorf("cut %d that another had cut", got)
			}
		})
	}
}

func TestDrainTwiceAtOnce(t *testing.T) {
	bubble(t, "", func(s *stage) {
		s.put("id", "a.test")
		const n = 20
		for range n {
			s.connect()
		}
		s.put("id", "a.test")
		a := begun(func() int { return s.store.Drain("id", time.Minute) })
		b := begun(func() int { return s.store.Drain("id", time.Minute) })
		if got := <-a + <-b; got != n {
			s.Errorf("two calls cut %d connections of %d", got, n)
		}
	})
}

// What was removed is old, whatever answers in its place.
func TestDrainOfTheRemoved(t *testing.T) {
	bubble(t, "", func(s *stage) {
		wildcard := s.put("wildcard", "*.test")
		s.put("id", "a.test")
		l := s.connect()
		s.store.Remove("id")
		fresh := s.connect()
		if got := s.store.Drain("wildcard", 0); got != 0 || !fresh.is(wildcard) {
			s.Errorf("cut %d of another id", got)
		}
		if got := s.store.Drain("id", 0); got != 1 || l.open() || !fresh.open() {
			s.Errorf("cut %d, want that of the certificate that was removed", got)
		}
	})
}

// A connection that resumed a session was shown no certificate: what it uses goes by the
// name, where that is known, and otherwise by there being nothing else. With TLS 1.2 the
// choice is made before it is known that there is a session.
func TestDrainOfResumedSessions(t *testing.T) {
	trusting := func(s *stage) { s.server = new(keyturn.Trust).ServerConfig(s.server) }
	other := func(s *stage) { s.put("other", "b.test") }
	sole := func(*stage) {}
	for name, test := range map[string]struct {
		version  uint16
		prepare  []func(*stage)
		name, id string
		want     int
	}{
		"sole":                        {tls.VersionTLS13, []func(*stage){sole}, "a.test", "id", 1},
		"sole, and another is meant":  {tls.VersionTLS13, []func(*stage){sole}, "a.test", "unknown", 0},
		"of two":                      {tls.VersionTLS13, []func(*stage){other}, "a.test", "id", 0},
		"of two, TLS 1.2":             {tls.VersionTLS12, []func(*stage){other}, "a.test", "id", 1},
		"of two, by name":             {tls.VersionTLS13, []func(*stage){other, trusting}, "a.test", "id", 1},
		"of two, by another name":     {tls.VersionTLS13, []func(*stage){other, trusting}, "b.test", "id", 0},
		"of two, by address":          {tls.VersionTLS13, []func(*stage){other, trusting}, "192.0.2.1", "id", 1},
		"of two, the other's address": {tls.VersionTLS13, []func(*stage){other, trusting}, "192.0.2.1", "other", 0},
		"of two, the default": {tls.VersionTLS13, []func(*stage){other, trusting, func(s *stage) {
			s.store.SetDefault("other")
			s.client.InsecureSkipVerify = true
		}}, "c.test", "id", 0},
		"of two, the default's": {tls.VersionTLS13, []func(*stage){other, trusting, func(s *stage) {
			s.store.SetDefault("id")
			s.client.InsecureSkipVerify = true
		}}, "c.test", "id", 1},
	} {
		bubble(t, name, func(s *stage) {
			s.put("id", "a.test", "192.0.2.1")
			for _, prepare := range test.prepare {
				prepare(s)
			}
			s.client.ServerName, s.client.MaxVersion = test.name, test.version
			s.resumes()
			l := s.connect()
			if !l.resumed {
				s.Fatal("no session was resumed")
			}
			for id := range s.store.All() {
				if id == test.id {
					s.put(id, map[string][]string{"id": {"a.test", "192.0.2.1"}, "other": {"b.test"}}[id]...)
				}
			}
			later := s.connect()
			if got := s.store.Drain(test.id, 0); got != test.want || l.open() != (test.want == 0) || !later.open() {
				s.Errorf("cut %d, want %d; a later one is open: %t", got, test.want, later.open())
			}
		})
	}
}

// A connection uses what a Lazy was opened to, and one that turns out bad is no change.
func TestDrainOfLazy(t *testing.T) {
	bubble(t, "", func(s *stage) {
		var opened atomic.Int32
		first := s.root.leaf(s, names("a.test"))
		load(s, s.store, "id", lazily(first, &opened, "a.test"))
		l := s.connect()
		if got := s.store.Drain("id", 0); got != 0 || !l.is(first) || !l.open() {
			s.Errorf("cut %d that use what was opened", got)
		}

		load(s, s.store, "id", bad("a.test"))
		cut := begun(func() int { return s.store.Drain("id", time.Minute) })
		if !keyturn.Draining(l.ctx) {
			s.Error("not Draining, though a new certificate is there")
		}
		if again := s.connect(); !again.is(first) {
			s.Error("what was served is not served again")
		}
		if got := <-cut; got != 0 || !l.open() || keyturn.Draining(l.ctx) {
			s.Errorf("cut %d that use what is served again", got)
		}

		load(s, s.store, "id", lazily(s.root.leaf(s, names("a.test")), &opened, "a.test"))
		if got := s.store.Drain("id", 0); got != 2 || l.open() || opened.Load() != 1 {
			s.Errorf("cut %d, want both of the certificate that was opened once", got)
		}
	})
}

// Stores do not know the certificates of each other, if they have them under the same id
// and listen for each other.
func TestDrainOfTwoStores(t *testing.T) {
	bubble(t, "", func(s *stage) {
		var certificates keyturn.Store // the connections are known to s.store
		put(t, &certificates, "id", s.root.leaf(s, names("a.test")))
		s.put("id", "a.test")
		s.put("other", "b.test")
		s.server = certificates.ServerConfig()
		l := s.connect()
		put(t, &certificates, "id", s.root.leaf(s, names("a.test")))
		s.put("id", "a.test")
		for _, store := range []*keyturn.Store{&certificates, s.store} {
			if got := store.Drain("id", 0); got != 0 || !l.open() {
				s.Errorf("cut %d of another Store's", got)
			}
		}
		if got := certificates.DrainAll(0); got != 0 {
			s.Errorf("cut %d that it does not know", got)
		}
		if got := s.store.DrainAll(0); got != 1 || l.open() {
			s.Errorf("cut %d, want one", got)
		}
	})
}

// Which certificate a client showed is not known, but since when its connection is open.
func TestDrainOfClients(t *testing.T) {
	bubble(t, "", func(s *stage) {
		s.put("server", "a.test")
		s.peer = new(keyturn.Store)
		s.client = s.peer.ClientConfig(s.client)
		replace := func(id string) { put(s, s.peer, id, s.root.leaf(s, names("client.test"))) }
		replace("id")
		old := s.connect()
		replace("id")
		fresh := s.connect()
		if got := s.peer.Drain("id", 0); got != 1 || old.open() || !fresh.open() {
			s.Errorf("cut %d, want the one that was opened before", got)
		}

		// Of two ids, it is not known which.
		replace("other")
		replace("id")
		if got := s.peer.Drain("id", 0); got != 0 || !fresh.open() {
			s.Errorf("cut %d of which nothing is known", got)
		}
		if got := s.peer.Compromised("other"); got != 1 || fresh.open() {
			s.Errorf("cut %d, want what may use it", got)
		}
	})
}
