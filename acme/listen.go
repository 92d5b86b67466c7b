// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// Listen listens on port 443 of all addresses, with a certificate of Let's Encrypt for
// the names that is kept in DefaultDir, for a server such as [net/http.Serve]:
//
//	listener, err := acme.Listen("example.com", "www.example.com")
//
// To use it is to agree to Let's Encrypt's terms of service. It returns as soon as the
// port is open; handshakes wait until there is a certificate. Closing the listener ends
// renewals as well. For anything else there is [Config].
func Listen(names ...string) (net.Listener, error) {
	return Config{Names: names, TermsAgreed: true}.Listen(context.Background(), ":443")
}

// Listen is [Config.Open] and a TLS listener on the address in one. Closing the listener
// closes the Server.
func (c Config) Listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	inner, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s, err := c.Open(ctx)
	if err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	return &listener{s.Listener(inner), s}, nil
}

// Listener returns a listener whose connections are those of inner, by TLS: each an
// unfinished [*tls.Conn], as of [tls.NewListener]. Closing it closes inner, and not the
// Server.
func (s *Server) Listener(inner net.Listener) net.Listener {
	return tls.NewListener(&accepting{s.store.Listener(inner), s}, s.TLSConfig())
}

// An accepting listener tells the Server that the process serves.
type accepting struct {
	net.Listener
	server *Server
}

func (a *accepting) Accept() (net.Conn, error) {
	a.server.serves()
	return a.Listener.Accept()
}

// A listener has a Server of its own.
type listener struct {
	net.Listener
	server *Server
}

func (l *listener) Close() error { return errors.Join(l.Listener.Close(), l.server.Close()) }
