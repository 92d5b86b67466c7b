// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"net"
	"testing"
)

// BenchmarkChooseAddr is the choice for a client that sent no server name. The other
// choices are measured in bench/, beside limits and peers.
func BenchmarkChooseAddr(b *testing.B) {
	key, _ := keyOf("192.0.2.1")
	g := &generation{id: "address", cert: new(tls.Certificate), keys: []string{key}, server: true}
	g.alone.gen = g
	var store Store
	store.exchange(nil, g)
	hello := &tls.ClientHelloInfo{Conn: localConn{addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 443}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := store.GetCertificate(hello); err != nil {
			b.Fatal(err)
		}
	}
}

type localConn struct {
	net.Conn
	addr net.Addr
}

func (c localConn) LocalAddr() net.Addr { return c.addr }
