// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// An identity is what the service is told of a verified client.
type identity struct {
	cert  string // Client-Cert
	chain string // Client-Cert-Chain; "" if there is none
	name  string // "" if the certificate has none that can stand in a header
	ends  time.Time
}

// A client is a connection's, whose certificate is encoded once.
type client struct {
	conn *conn // nil if it is none of Serve's
	once sync.Once
	id   *identity // nil if nobody was verified; set by once
}

type clientKey struct{}

func withClient(ctx context.Context, outer net.Conn) context.Context {
	c := new(client)
	for c.conn == nil {
		below, ok := outer.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		outer = below.NetConn()
		c.conn, _ = outer.(*conn)
	}
	return context.WithValue(ctx, clientKey{}, c)
}

// identityOf returns who was verified on the connection of a request; nil is nobody.
func identityOf(r *http.Request) *identity {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	c, ok := r.Context().Value(clientKey{}).(*client)
	if !ok {
		return newIdentity(r.TLS)
	}
	c.once.Do(func() { c.id = newIdentity(r.TLS) })
	return c.id
}

func newIdentity(state *tls.ConnectionState) *identity {
	chain := state.VerifiedChains[0]
	id := &identity{cert: bytesItem(chain[0].Raw), name: nameOf(chain[0]), ends: chain[0].NotAfter}
	// The root is the service's own business; what the client sent beside the verified
	// chain is nobody's.
	var between []string
	for i, cert := range chain {
		if i > 0 && i < len(chain)-1 {
			between = append(between, bytesItem(cert.Raw))
		}
		if cert.NotAfter.Before(id.ends) {
			id.ends = cert.NotAfter
		}
	}
	id.chain = strings.Join(between, ", ")
	return id
}

// bytesItem is a byte sequence of RFC 8941 section 3.3.5.
func bytesItem(b []byte) string { return ":" + base64.StdEncoding.EncodeToString(b) + ":" }

// nameOf returns the first URI of a certificate, or else its first DNS name. A DNS name
// that looks like anything else is none: a CA that may only sign those could write a
// URI there. Neither is a URI without a scheme, which could look like a DNS name that the
// CA may not sign.
func nameOf(cert *x509.Certificate) string {
	if len(cert.URIs) > 0 {
		uri := cert.URIs[0].String()
		if !cert.URIs[0].IsAbs() || strings.ContainsFunc(uri, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' }) {
			return ""
		}
		return uri
	}
	if len(cert.DNSNames) == 0 {
		return ""
	}
	name := cert.DNSNames[0]
	for _, c := range []byte(strings.ToLower(name)) {
		if !alphanumeric(c) && !strings.ContainsRune("-._*", rune(c)) {
			return ""
		}
	}
	return name
}

// set tells the service. What the client said under these names is gone before.
func (id *identity) set(h http.Header, header string) {
	if id == nil {
		return
	}
	h[clientCert] = []string{id.cert}
	if id.chain != "" {
		h[clientCertChain] = []string{id.chain}
	}
	if id.name != "" {
		h.Set(header, id.name)
	}
}
