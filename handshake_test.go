// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/internal/race"
)

var versions = map[string]uint16{"TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13}

// handshake does one over memory and returns what client and server saw.
func handshake(client, server *tls.Config) (c, s tls.ConnectionState, clientErr, serverErr error) {
	a, b := net.Pipe()
	return handshakeOver(a, b, client, server)
}

func handshakeOver(a, b net.Conn, client, server *tls.Config) (c, s tls.ConnectionState, clientErr, serverErr error) {
	tc, ts := tls.Client(a, client), tls.Server(b, server)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer b.Close()
		if serverErr = ts.Handshake(); serverErr == nil {
			// The client's byte tells that it is done. Tickets that the server has sent
			// are read by the client with this byte's answer.
			var one [1]byte
			ts.Read(one[:])
			ts.Write(one[:])
			s = ts.ConnectionState()
		}
	})
	if clientErr = tc.Handshake(); clientErr == nil {
		one := [1]byte{1}
		tc.Write(one[:])
		_, clientErr = tc.Read(one[:])
		c = tc.ConnectionState()
	}
	a.Close()
	wg.Wait()
	return c, s, clientErr, serverErr
}

func TestHandshakes(t *testing.T) {
	root := newRoot(t, "root")
	intermediate := newAuthority(t, "intermediate", root)
	var store keyturn.Store
	put(t, &store, "ecdsa", intermediate.leaf(t, names("a.test", "127.0.0.1")))
	put(t, &store, "rsa", intermediate.leafFor(t, newKey(t, x509.RSA), names("a.test")))
	put(t, &store, "ed25519", intermediate.leafFor(t, newKey(t, x509.Ed25519), names("*.b.test")))

	for name, version := range versions {
		t.Run(name, func(t *testing.T) {
			client := func(serverName string) *tls.Config {
				return &tls.Config{RootCAs: root.pool(), ServerName: serverName, MaxVersion: version, NextProtos: []string{"h2"}}
			}
			for serverName, want := range map[string]x509.PublicKeyAlgorithm{
				"a.test": x509.ECDSA, "A.TEST": x509.ECDSA, "x.b.test": x509.Ed25519,
			} {
				state, _, clientErr, serverErr := handshake(client(serverName), store.ServerConfig())
				if clientErr != nil || serverErr != nil {
					t.Fatalf("%s: %v, %v", serverName, clientErr, serverErr)
				}
				if got := state.PeerCertificates[0].PublicKeyAlgorithm; got != want || state.Version != version || state.NegotiatedProtocol != "h2" {
					t.Errorf("%s: got %v over version %x with %q", serverName, got, state.Version, state.NegotiatedProtocol)
				}
			}
			_, _, clientErr, serverErr := handshake(client("unknown.test"), store.ServerConfig())
			var unknown *keyturn.UnknownNameError
			var alert tls.AlertError
			if !errors.As(serverErr, &unknown) || unknown.Name != "unknown.test" || !errors.As(clientErr, &alert) && !strings.Contains(fmt.Sprint(clientErr), "internal error") {
				t.Errorf("unknown name: client %v, server %v", clientErr, serverErr)
			}
		})
	}

	// A TLS 1.2 client that has only RSA.
	rsaOnly := &tls.Config{RootCAs: root.pool(), ServerName: "a.test", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	state, _, clientErr, serverErr := handshake(rsaOnly, store.ServerConfig())
	if clientErr != nil || serverErr != nil || state.PeerCertificates[0].PublicKeyAlgorithm != x509.RSA {
		t.Errorf("RSA only: %v, %v", clientErr, serverErr)
	}
}

// A client that connects to an address sends no name.
func TestHandshakeWithAnAddress(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	put(t, &store, "address", root.leaf(t, names("127.0.0.1")))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, version := range versions {
		a, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		client := &tls.Config{RootCAs: root.pool(), ServerName: "127.0.0.1", MaxVersion: version}
		_, s, clientErr, serverErr := handshakeOver(a, b, client, store.ServerConfig())
		if clientErr != nil || serverErr != nil || s.ServerName != "" {
			t.Errorf("%s: %v, %v, server name %q", name, clientErr, serverErr, s.ServerName)
		}
	}
}

func TestHandshakeWithClientCertificate(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	var servers, clients keyturn.Store
	put(t, &servers, "id", root.leaf(t, names("a.test")))
	put(t, &clients, "id", root.leaf(t, uris("spiffe://example.org/client"), usages(x509.ExtKeyUsageClientAuth)))
	for name, version := range versions {
		for accepts, want := range map[*authority]int{root: 1, other: 0} {
			server := servers.ServerConfig()
			server.ClientAuth, server.ClientCAs = tls.VerifyClientCertIfGiven, accepts.pool()
			client := &tls.Config{RootCAs: root.pool(), ServerName: "a.test", MaxVersion: version, GetClientCertificate: clients.GetClientCertificate}
			_, s, clientErr, serverErr := handshake(client, server)
			if clientErr != nil || serverErr != nil || len(s.PeerCertificates) != want {
				t.Errorf("%s: %v, %v, the server saw %d certificates, want %d", name, clientErr, serverErr, len(s.PeerCertificates), want)
			}
		}
	}
}

// While the certificate is replaced all the time, no handshake fails, and none gets a
// certificate from before a Put that had returned when the handshake began.
func TestHandshakesWhileReplacing(t *testing.T) {
	const ring = 4096
	handshakes := 10_000
	if race.Enabled { // with it, each takes ten times as long
		handshakes /= 5
	}
	root := newRoot(t, "root")
	key := newKey(t, x509.ECDSA)
	certs := make([]tls.Certificate, ring)
	number := make(map[string]int64) // of a certificate's bytes
	for i := range certs {
		certs[i] = root.leafFor(t, key, names("a.test"))
		number[string(certs[i].Certificate[0])] = int64(i)
	}
	var store keyturn.Store
	var trust keyturn.Trust
	put(t, &store, "id", certs[0])
	configs := []*tls.Config{store.ServerConfig(), trust.ServerConfig(store.ServerConfig())}

	var begun, returned atomic.Int64 // the numbers of the last Puts
	done := make(chan struct{})
	var writer, clients sync.WaitGroup
	writer.Go(func() {
		for i := int64(1); ; i++ {
			select {
			case <-done:
				return
			default:
				begun.Store(i)
				put(t, &store, "id", certs[i%ring])
				returned.Store(i)
			}
		}
	})
	var failed, stale atomic.Int64
	for _, version := range versions {
		clients.Go(func() {
			client := &tls.Config{RootCAs: root.pool(), ServerName: "a.test", MaxVersion: version}
			for i := range handshakes / len(versions) {
				first := returned.Load()
				state, _, clientErr, serverErr := handshake(client, configs[i%len(configs)])
				last := begun.Load()
				if clientErr != nil || serverErr != nil {
					failed.Add(1)
					t.Errorf("version %x: %v, %v", version, clientErr, serverErr)
					continue
				}
				// The numbers begin anew after each turn of the ring.
				if got := number[string(state.PeerCertificates[0].Raw)]; (got-first%ring+ring)%ring > last-first {
					stale.Add(1)
					t.Errorf("version %x: got number %d of %d, after number %d was put", version, got, ring, first)
				}
			}
		})
	}
	clients.Wait()
	close(done)
	writer.Wait()
	t.Logf("%d handshakes, %d replacements, %d failed, %d stale", handshakes, returned.Load(), failed.Load(), stale.Load())
}
