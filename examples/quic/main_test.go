// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/quic-go/quic-go"
	"go.uber.org/goleak"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Clients that resume no sessions get to the new certificate, and no connection fails.
func TestRotation(t *testing.T) {
	ca, files := exampletest.NewCA(t), exampletest.NewPair(t)
	cert, first := ca.Issue(t)
	files.Write(t, cert)
	server := exampletest.Start(t, run, "server", "--cert", files.Cert, "--key", files.Key, "--listen", "127.0.0.1:0")
	address := server.After("serving on ")
	client := exampletest.Start(t, run, "client", "--ca", exampletest.NewCAs(t, ca), "--connect", address, "--every", "1ms", "--fresh")
	until := func(serial string) {
		t.Helper()
		for line := ""; line != "certificate "+serial+", resumed false"; {
			if line = client.Line(); strings.HasPrefix(line, "failed") {
				t.Fatal(line)
			}
		}
	}
	until(first)
	cert, second := ca.Issue(t)
	files.Write(t, cert)
	until(second)
}

// A gated is a client's socket that hears nothing until the gate is open.
type gated struct {
	net.PacketConn
	gate <-chan struct{}
}

func (g gated) ReadFrom(to []byte) (int, net.Addr, error) {
	<-g.gate
	return g.PacketConn.ReadFrom(to)
}

// A cache says whether the latest connection found a session in it.
type cache struct {
	tls.ClientSessionCache
	found chan bool
}

func (c cache) Get(key string) (*tls.ClientSessionState, bool) {
	state, ok := c.ClientSessionCache.Get(key)
	c.found <- ok
	return state, ok
}

// sayEarly is say with 0-RTT, if there is a session. The client hears the server only when
// all is said: quic-go reads what the server answers without a lock.
func sayEarly(t *testing.T, address string, config *tls.Config, what string) quic.ConnectionState {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	server, err := net.ResolveUDPAddr("udp", address)
	fatal(err)
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	fatal(err)
	defer packets.Close()
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	transport := &quic.Transport{Conn: gated{packets, gate}}
	defer transport.Close()
	defer open()

	config = config.Clone()
	found := make(chan bool, 1)
	config.ClientSessionCache = cache{config.ClientSessionCache, found}
	go func() {
		if !<-found {
			open() // without a session, nothing can be said before
		}
	}()
	conn, err := transport.DialEarly(t.Context(), server, config, nil)
	fatal(err)
	defer conn.CloseWithError(0, "")
	stream := begin(t, conn, what)
	open()
	answer, err := io.ReadAll(stream)
	if errors.Is(err, quic.Err0RTTRejected) {
		// The server did not resume the session, and threw away what came with it.
		conn, err = conn.NextConnection(t.Context())
		fatal(err)
		answer, err = io.ReadAll(begin(t, conn, what))
	}
	fatal(err)
	if string(answer) != what {
		t.Errorf("%q came back for %q", answer, what)
	}
	return conn.ConnectionState()
}

func begin(t *testing.T, conn *quic.Conn, what string) *quic.Stream {
	t.Helper()
	stream, err := conn.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stream, what); err != nil {
		t.Fatal(err)
	}
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	return stream
}

// Sessions are resumed, with 0-RTT, also after a new certificate, but not after the old one
// was compromised, nor after the trust of either side has changed.
func TestResumption(t *testing.T) {
	ca := exampletest.NewCA(t)
	for what, config := range map[string]func(*tls.Config, *keyturn.Trust) *tls.Config{
		"Store":           func(config *tls.Config, _ *keyturn.Trust) *tls.Config { return config },
		"Store and Trust": func(config *tls.Config, trust *keyturn.Trust) *tls.Config { return trust.ServerConfig(config) },
	} {
		t.Run(what, func(t *testing.T) {
			var store keyturn.Store
			put := func() (serial string) {
				cert, serial := ca.Issue(t)
				if err := store.Put("quic", cert); err != nil {
					t.Fatal(err)
				}
				return serial
			}
			first := put()
			var servers, clients keyturn.Trust
			base := store.ServerConfig()
			base.NextProtos = []string{protocol}
			server := exampletest.Start(t, func(ctx context.Context, _ []string, out io.Writer) error {
				return serve(ctx, "127.0.0.1:0", config(base, &servers), out)
			})
			address := server.After("serving on ")
			clients.SetRootCAs(ca.Pool())
			client := clients.ClientConfig("localhost")
			client.NextProtos = []string{protocol}
			check := func(when, serial string, resumed bool) {
				t.Helper()
				state := sayEarly(t, address, client, when)
				if got := state.TLS.PeerCertificates[0].SerialNumber.String(); got != serial || state.TLS.DidResume != resumed || state.Used0RTT != resumed {
					t.Errorf("%s: certificate %s, resumed %t, 0-RTT %t; want %s and %t", when, got, state.TLS.DidResume, state.Used0RTT, serial, resumed)
				}
			}
			check("first", first, false)
			check("again", first, true)
			second := put()
			check("after a new certificate", first, true)
			store.Compromised("quic")
			check("after the old one was compromised", second, false)
			check("and again", second, true)
			clients.SetRootCAs(ca.Pool())
			check("after the client trusts anew", second, false)
			check("and again", second, true)
			servers.SetClientAuth(tls.RequestClientCert)
			check("after the server trusts anew", second, what == "Store")
		})
	}
}
