// SPDX-License-Identifier: Apache-2.0

// Package proxy is TLS in front of one plain HTTP service: it ends the TLS of clients,
// over HTTP/1.1 and HTTP/2, and passes their requests on.
//
//	p, err := proxy.New(proxy.Config{To: target, TLS: store.ServerConfig()})
//	go p.Serve(listener)
//	…
//	cut := p.Drain(ctx)
//
// It is no router: there is one service, and paths, queries and bodies get there as they
// were sent. WebSocket connections and answers that are sent bit by bit pass through.
//
// # What the service may believe
//
// Whatever a client sends under these names, in any letter case and with any other
// character in place of a hyphen, is taken away, so that what the service sees is this
// proxy's word:
//
//	X-Forwarded-For      the client's address; before it, those that a proxy of
//	                     TrustForwarded sent
//	X-Forwarded-Host     the host that the client asked for
//	X-Forwarded-Proto    https
//	Client-Cert          the client's certificate, if it was verified (RFC 9440)
//	Client-Cert-Chain    the certificates between it and the root, if there are any
//	X-Client-Identity    its first URI, or else its first DNS name; the name of this
//	                     header can be chosen
//
// Others that start with X-Forwarded-, and Forwarded and X-Real-IP, are taken away and
// not set. All of this holds only where clients cannot reach the service around the proxy.
//
// # What is refused
//
// CONNECT, and TRACE, which would show a client what is only meant for the service. A wish
// to go on with another protocol than WebSocket is not passed on: a service that would speak
// HTTP/2 over such a connection (h2c) would take requests from the client that the proxy
// never sees. Trailers of requests are left out, since they arrive after it was decided
// what the service may believe. Of a request that can be read in two ways, the service gets
// what net/http has made of it, written anew.
//
// # Slow clients
//
// A client has so long for its handshake and the header of a request; after that, reading
// its body, or writing to it, may not stand still for longer than StallTimeout. How long
// all of it takes is not bounded, and neither is the silence of a WebSocket.
package proxy
