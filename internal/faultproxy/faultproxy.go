// SPDX-License-Identifier: Apache-2.0

// Package faultproxy puts a link between tests and a real server that fails as
// networks do: it refuses, resets, falls silent, loses one direction, delays, or tears
// what is on its way. It is for tests alone.
package faultproxy

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// A Fault is what is wrong with a link. The zero one is nothing.
type Fault string

// The faults. What is under way when one begins meets it, too.
const (
	None Fault = ""
	// Refused has nobody listen; connections that stand are reset.
	Refused Fault = "refused"
	// Reset resets what stands, and each new connection once it stands.
	Reset Fault = "reset"
	// Held lets nothing through. What was held arrives when it ends, as what TCP
	// repeats does.
	Held Fault = "held"
	// Lost loses all, and no connection that stood or was made meanwhile ever works
	// again, nor says so, as after a firewall forgot it.
	Lost Fault = "lost"
	// Deaf is Lost for what the server says: half-open.
	Deaf Fault = "deaf"
	// Mute is Lost for what the client says.
	Mute Fault = "mute"
	// Slow delays each piece by 300 to 900 ms, up and down.
	Slow Fault = "slow"
	// Torn resets each connection after at most 2,000 bytes more, in the middle of
	// whatever it carries.
	Torn Fault = "torn"
)

// Faults returns all but None.
func Faults() []Fault { return []Fault{Refused, Reset, Held, Lost, Deaf, Mute, Slow, Torn} }

// Bounds of what faults do.
const (
	minDelay = 300 * time.Millisecond
	maxDelay = 900 * time.Millisecond
	tornMost = 2000 // bytes
)

// A Proxy is a link to a server. It is safe for concurrent use.
type Proxy struct {
	addr, target string
	ctx          context.Context // ends with the proxy
	cancel       context.CancelFunc
	running      sync.WaitGroup

	mu       sync.Mutex
	fault    Fault          // guarded by mu
	changed  chan struct{}  // guarded by mu; closed when the fault changes
	listener net.Listener   // guarded by mu; nil while nobody listens
	pairs    map[*pair]bool // guarded by mu
	closed   bool           // guarded by mu
}

// A pair is a connection, and the one that it is carried on by. What is lost on it once
// is lost for ever.
type pair struct {
	near, far net.Conn

	mu         sync.Mutex
	deaf, mute bool // guarded by mu
	torn       int  // guarded by mu; how many bytes it still carries; 0 is no bound
}

// Start starts a link to a TCP address on a free port of loopback. It ends with the
// test.
func Start(tb testing.TB, target string) *Proxy {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p := &Proxy{addr: l.Addr().String(), target: target, changed: make(chan struct{}), pairs: make(map[*pair]bool)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.serve(l)
	tb.Cleanup(p.close)
	return p
}

// Addr is where clients connect, HOST:PORT.
func (p *Proxy) Addr() string { return p.addr }

// Set makes the link fail in a way, or work again. An error is that the port, which was
// given up, has been taken by somebody else.
func (p *Proxy) Set(f Fault) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return net.ErrClosed
	}
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
	for one := range p.pairs {
		p.spoil(one)
	}
	switch {
	case f == Refused && p.listener != nil:
		_ = p.listener.Close()
		p.listener = nil
	case f != Refused && p.listener == nil:
		l, err := net.Listen("tcp", p.addr)
		if err != nil {
			return err
		}
		p.serve(l)
	}
	return nil
}

// spoil does to a connection what the fault does for good. It is called with mu held.
func (p *Proxy) spoil(one *pair) {
	one.mu.Lock()
	defer one.mu.Unlock()
	switch p.fault {
	case Refused, Reset:
		reset(one.near)
		reset(one.far)
	case Lost:
		one.deaf, one.mute = true, true
	case Deaf:
		one.deaf = true
	case Mute:
		one.mute = true
	case Torn:
		one.torn = 1 + rand.IntN(tornMost)
	default:
		one.torn = 0
	}
}

func reset(c net.Conn) {
	if c == nil {
		return
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// serve is called with mu held, or before anybody knows of the proxy.
func (p *Proxy) serve(l net.Listener) {
	p.listener = l
	p.running.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.carry(near) })
		}
	})
}

// carry carries a connection until it ends.
func (p *Proxy) carry(near net.Conn) {
	far, err := new(net.Dialer).DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		reset(near)
		return
	}
	one := &pair{near: near, far: far}
	p.mu.Lock()
	if p.closed {
		p.fault = Reset
	}
	p.pairs[one] = true
	p.spoil(one)
	p.mu.Unlock()

	var both sync.WaitGroup
	both.Go(func() { p.copy(one, far, near, true) })
	both.Go(func() { p.copy(one, near, far, false) })
	both.Wait()
	_, _ = near.Close(), far.Close()
	p.mu.Lock()
	delete(p.pairs, one)
	p.mu.Unlock()
}

// copy carries one direction. Where that ends in order, the other goes on.
func (p *Proxy) copy(one *pair, to, from net.Conn, up bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.pass(one, to, buf[:n], up) {
			reset(to)
			reset(from)
			return
		}
		if err == io.EOF {
			p.wait() // what says the end is on its way, too
			if !one.loses(up) {
				_ = to.(*net.TCPConn).CloseWrite()
			}
			return
		}
		if err != nil {
			reset(to)
			reset(from)
			return
		}
	}
}

// pass carries a piece on, and reports whether the connection goes on.
func (p *Proxy) pass(one *pair, to net.Conn, piece []byte, up bool) bool {
	if !p.wait() {
		return false
	}
	if one.loses(up) {
		return true
	}
	most, torn := one.tears(len(piece))
	_, err := to.Write(piece[:most])
	return err == nil && !torn
}

// loses reports whether a direction is dead.
func (one *pair) loses(up bool) bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	return up && one.mute || !up && one.deaf
}

// tears returns how many of n bytes go through, and whether the connection ends then.
func (one *pair) tears(n int) (most int, torn bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.torn == 0 {
		return n, false
	}
	if n >= one.torn {
		return one.torn, true
	}
	one.torn -= n
	return n, false
}

// now returns the fault, and what is closed when that changes.
func (p *Proxy) now() (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.changed
}

// wait takes the time that the fault takes, and reports whether the proxy goes on.
func (p *Proxy) wait() bool {
	fault, changed := p.now()
	for ; fault == Held; fault, changed = p.now() {
		select {
		case <-changed:
		case <-p.ctx.Done():
			return false
		}
	}
	if fault != Slow {
		return true
	}
	select {
	case <-time.After(minDelay + rand.N(maxDelay-minDelay)):
	case <-p.ctx.Done():
		return false
	}
	return true
}

func (p *Proxy) close() {
	p.cancel()
	p.mu.Lock()
	p.closed, p.fault = true, Reset
	if p.listener != nil {
		_ = p.listener.Close()
	}
	for one := range p.pairs {
		p.spoil(one)
	}
	p.mu.Unlock()
	p.running.Wait()
}
