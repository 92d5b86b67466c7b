// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn"
)

// What is under way when a certificate changes is cut only if it was served the old one.
func TestDrainDuringHandshakes(t *testing.T) {
	var opened atomic.Int32
	for name, change := range map[string]func(*stage) (during func()){
		"put": func(s *stage) func() { s.put("id", "a.test"); return func() {} },
		"loaded": func(s *stage) func() {
			load(s, s.store, "id", lazily(s.root.leaf(s, names("a.test")), &opened, "a.test"))
			return func() {}
		},
		"put while draining": func(s *stage) func() {
			s.put("id", "a.test")
			return func() { s.put("id", "a.test") }
		},
		"removed, and put while draining": func(s *stage) func() {
			s.store.Remove("id")
			return func() { s.put("id", "a.test") }
		},
	} {
		bubble(t, name, func(s *stage) {
			first := s.put("id", "a.test")
			old := s.connect()
			client, server := s.dial()
			_, silent := s.dial()
			during := change(s)
			cut := begun(func() int { return s.store.Drain("id", time.Minute) })
			during()
			l := s.handshake(client, server)
			if l.is(first) || !old.is(first) {
				s.Error("a handshake after the change was served the old certificate, or one before it the new one")
			}
			// The one that never says anything may be an old one, for what is known.
			if got := <-cut; got != 2 || old.open() || !l.open() {
				s.Errorf("cut %d, want the old connection and the silent one; the new one is open: %t", got, l.open())
			}
			if _, err := silent.Read(make([]byte, 1)); err == nil {
				s.Error("the connection without a handshake is open")
			}
			if keyturn.Draining(l.ctx) {
				s.Error("nothing waits for the connection any more, and Draining says otherwise")
			}
		})
	}
}

// heldKey is a private key that can be held where crypto/tls looks whether it suits a
// client: in the midst of a choice among several.
type heldKey struct {
	crypto.Signer
	hold func()
}

func (k heldKey) Public() crypto.PublicKey {
	k.hold()
	return k.Signer.Public()
}

// A certificate that was chosen just before a change is not used after Drain has looked.
func TestDrainDuringAChoice(t *testing.T) {
	bubble(t, "", func(s *stage) {
		s.put("other", "a.test")
		var armed atomic.Bool
		gate := make(chan struct{})
		first := s.root.leaf(s, names("a.test"))
		first.PrivateKey = heldKey{first.PrivateKey.(crypto.Signer), func() {
			if armed.CompareAndSwap(true, false) {
				<-gate
			}
		}}
		put(s, s.store, "id", first)

		armed.Store(true)
		client, server := s.dial()
		done := make(chan *link)
		go func() { done <- s.handshake(client, server) }()
		synctest.Wait() // the choice is made, but for what crypto/tls says
		second := s.put("id", "a.test")
		if cut := s.store.Drain("id", 0); cut != 0 {
			s.Errorf("cut %d connections that were served nothing yet", cut)
		}
		close(gate)
		if l := <-done; !l.is(second) {
			s.Error("what was removed before Drain is served after it")
		}
	})
}

// Draining sees through what wraps a connection, and does not say yes of others.
func TestDraining(t *testing.T) {
	bubble(t, "", func(s *stage) {
		s.put("id", "a.test")
		l := s.connect()
		other, _ := net.Pipe()
		defer other.Close()
		for what, ctx := range map[string]context.Context{
			"no connection":         context.Background(),
			"a nil connection":      keyturn.ConnContext(context.Background(), nil),
			"a connection of none":  keyturn.ConnContext(context.Background(), other),
			"one of none below TLS": keyturn.ConnContext(context.Background(), tls.Server(other, s.server)),
			"one that is served":    l.ctx,
		} {
			if keyturn.Draining(ctx) {
				s.Errorf("%s: Draining before anything drains", what)
			}
		}

		// Several wait for it, and one of them gives up.
		client, server := s.dial()
		s.put("id", "a.test")
		all := begun(func() int { return s.store.DrainAll(time.Hour) })
		one := begun(func() int { return s.store.Drain("id", time.Minute) })
		fresh := s.handshake(client, server)
		if !keyturn.Draining(l.ctx) {
			s.Error("not Draining while two wait for the connection")
		}
		if got := <-one; got != 1 || l.open() || !fresh.open() {
			s.Errorf("Drain = %d, want the old connection", got)
		}
		child, cancel := context.WithCancel(fresh.ctx)
		defer cancel()
		if !keyturn.Draining(child) {
			s.Error("DrainAll still waits for the connection, and Draining says otherwise")
		}
		if got := <-all; got != 1 || fresh.open() {
			s.Errorf("DrainAll = %d, want the other connection", got)
		}
	})
}

// What fails to accept or to dial fails as before.
func TestConnectionErrors(t *testing.T) {
	var store keyturn.Store
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := store.Listener(inner)
	if listener.Addr() != inner.Addr() {
		t.Errorf("the address is %v, want %v", listener.Addr(), inner.Addr())
	}
	if err := listener.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := listener.Accept(); conn != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, %v after Close", conn, err)
	}
	if conn, err := store.Dialer(nil)(t.Context(), "tcp", inner.Addr().String()); conn != nil || err == nil {
		t.Errorf("dialing what nobody listens on: %v, %v", conn, err)
	}
	failing := func(context.Context, string, string) (net.Conn, error) { return nil, errBad }
	if conn, err := store.Dialer(failing)(t.Context(), "tcp", ""); conn != nil || !errors.Is(err, errBad) {
		t.Errorf("dialing = %v, %v", conn, err)
	}
	if cut := store.DrainAll(time.Hour); cut != 0 {
		t.Errorf("DrainAll = %d without connections", cut)
	}
}
