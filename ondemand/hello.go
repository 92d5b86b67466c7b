// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/keyturn/keyturn/internal/names"
)

// serverName returns the normal form of a server name as a client sent it.
// Internationalised names come as A-labels (RFC 6066 section 3).
func serverName(sent string) (string, error) {
	if strings.ContainsFunc(sent, func(r rune) bool { return r > '~' }) {
		return "", errors.New("it is not a host name: it has characters outside ASCII")
	}
	name, err := names.Normalize(sent)
	if err != nil {
		return "", fmt.Errorf("it is not a host name: %w", err)
	}
	if strings.HasPrefix(name, "*") {
		return "", errors.New("it is not a host name, but a wildcard")
	}
	return name, nil
}

// localAddr returns the IP address that the client connected to; the zero Addr if it
// is not known, as of a Unix socket.
func localAddr(conn net.Conn) netip.Addr {
	if conn == nil {
		return netip.Addr{}
	}
	if a, ok := conn.LocalAddr().(interface{ AddrPort() netip.AddrPort }); ok {
		return a.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// contextOf is the handshake's; hellos that are made by hand have none.
func contextOf(hello interface{ Context() context.Context }) context.Context {
	if ctx := hello.Context(); ctx != nil {
		return ctx
	}
	return context.Background()
}

var (
	_ interface{ Context() context.Context } = (*tls.ClientHelloInfo)(nil)
	_ interface{ Context() context.Context } = (*tls.CertificateRequestInfo)(nil)
)
