// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// conns are the open connections that a Store knows.
type conns struct {
	mu   sync.Mutex // never held together with Store.mu
	open map[*conn]struct{}
}

// A conn is a connection below TLS.
type conn struct {
	net.Conn
	store *Store
	since int64         // Store.seq when it was opened
	ended chan struct{} // closed when it is

	gen      atomic.Pointer[generation] // what it was served; nil if that is not known
	name     atomic.Pointer[string]     // the server name, if a config noted it
	draining atomic.Int32               // how many calls wait for it to end
	once     sync.Once
}

func (s *Store) track(inner net.Conn) net.Conn {
	s.mu.Lock()
	since := s.seq
	s.mu.Unlock()
	c := &conn{Conn: inner, store: s, since: since, ended: make(chan struct{})}
	s.conns.mu.Lock()
	defer s.conns.mu.Unlock()
	if s.conns.open == nil {
		s.conns.open = make(map[*conn]struct{})
	}
	s.conns.open[c] = struct{}{}
	return c
}

// Close closes the connection, and its Store forgets it.
func (c *conn) Close() error {
	_, err := c.close()
	return err
}

// close is Close, and reports whether it was the first.
func (c *conn) close() (first bool, err error) {
	c.once.Do(func() {
		first, err = true, c.Conn.Close()
		c.store.conns.mu.Lock()
		defer c.store.conns.mu.Unlock()
		delete(c.store.conns.open, c)
		close(c.ended)
	})
	if !first {
		err = c.Conn.Close()
	}
	return first, err
}

// NetConn returns the connection below, as [tls.Conn.NetConn] does.
func (c *conn) NetConn() net.Conn { return c.Conn }

// use notes what the connection is served, and reports whether that was noted before. Of
// another Store it notes nothing.
func (c *conn) use(s *Store, g *generation) (noted bool) {
	return c.store != s || c.gen.Swap(g) == g
}

// note notes the server name of a connection, if some Store knows it.
func note(hello *tls.ClientHelloInfo) {
	if c, ok := hello.Conn.(*conn); ok {
		name := hello.ServerName // and not all of hello, for as long as the connection lives
		c.name.Store(&name)
	}
}

// marked returns the open connections for which old, and tells their users.
func (o *conns) marked(old func(*conn) bool) []*conn {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []*conn
	for c := range o.open {
		if old(c) {
			c.draining.Add(1)
			list = append(list, c)
		}
	}
	return list
}

// end waits for the connections for which old to end, and closes those that have not
// within the time.
func (o *conns) end(within time.Duration, old func(*conn) bool) (cut int) {
	list := o.marked(old)
	if within > 0 && len(list) > 0 {
		timer := time.NewTimer(within)
		defer timer.Stop()
		for _, c := range list {
			select {
			case <-c.ended:
				continue
			case <-timer.C:
			}
			break
		}
	}
	for _, c := range list {
		select {
		case <-c.ended:
			continue
		default:
		}
		// A handshake that was under way may have been served what is new.
		if !old(c) {
			c.draining.Add(-1)
		} else if first, _ := c.close(); first {
			cut++
		}
	}
	return cut
}

type connKey struct{}

// ConnContext makes [Draining] know the connection of a context. It is made for
// [net/http.Server.ConnContext].
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// Draining reports whether [Store.Drain] waits for the connection of a context to end.
// The context is one of [ConnContext], or made from one, such as that of an HTTP
// request; of any other connection the answer is no.
func Draining(ctx context.Context) bool {
	inner, _ := ctx.Value(connKey{}).(net.Conn)
	for inner != nil {
		if c, ok := inner.(*conn); ok {
			return c.draining.Load() > 0
		}
		wrapper, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		inner = wrapper.NetConn()
	}
	return false
}

type listener struct {
	net.Listener
	store *Store
}

func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.store.track(inner), nil
}
