// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

// Drain and Compromised cut the connection of calls that wait for an answer, on either
// side: they are tried again over a new one, and none fails.
func TestDrain(t *testing.T) {
	ca := exampletest.NewCA(t)
	var servers, clients keyturn.CertAuthManager
	replace := func(manager *keyturn.CertAuthManager) (serial string) {
		cert, serial := ca.Issue(t)
		manager.Update(cert)
		return serial
	}
	serverSerial, clientSerial := replace(&servers), replace(&clients)
	servers.SetClientAuth(tls.RequireAndVerifyClientCert)
	servers.SetClientCAs(ca.Pool())
	clients.SetRootCAs(ca.Pool())

	// A call is one that waits for its answer, which closing the channel gives.
	type call struct {
		by     string
		answer chan struct{}
	}
	arrived := make(chan call)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(servers.ServerConfig("h2"))),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			c := call{caller(ctx), make(chan struct{})}
			arrived <- c
			select {
			case <-c.answer:
			case <-ctx.Done(): // cut off
			}
			return handle(ctx, request)
		}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { _ = server.Serve(servers.Store().Listener(listener)) })
	defer server.Stop()

	config := clients.ClientConfig("127.0.0.1")
	config.ClientSessionCache = nil // as client does
	dial := clients.Store().Dialer(nil)
	conn, err := grpc.NewClient(listener.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) }),
		grpc.WithDefaultServiceConfig(retry))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	id := "" // of what a manager has
	for id = range servers.Store().All() {
	}
	for _, test := range []struct {
		what string
		cut  func() int
	}{
		{"Drain by the server", func() int {
			serverSerial = replace(&servers)
			return servers.Store().Drain(id, 0)
		}},
		{"Drain by the client", func() int {
			clientSerial = replace(&clients)
			return clients.Store().Drain(id, 0)
		}},
		{"Compromised by the server", func() int {
			serverSerial = replace(&servers)
			return servers.Store().Compromised(id)
		}},
		{"Compromised by the client", func() int {
			clientSerial = replace(&clients)
			return clients.Store().Compromised(id)
		}},
		{"DrainAll by the server", func() int { return servers.Store().DrainAll(0) }},
	} {
		const calls = 5
		var waiting sync.WaitGroup
		for range calls {
			waiting.Go(func() {
				var server peer.Peer
				if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), new(healthpb.HealthCheckRequest), grpc.Peer(&server)); err != nil {
					t.Errorf("%s: a call failed: %v", test.what, err)
				} else if got := serial(&server); got != serverSerial {
					t.Errorf("%s: answered by %s, want %s", test.what, got, serverSerial)
				}
			})
		}
		for range calls {
			<-arrived
		}
		if cut := test.cut(); cut != 1 {
			t.Errorf("%s: cut %d connections, want 1", test.what, cut)
		}
		for range calls {
			c := <-arrived
			if c.by != clientSerial {
				t.Errorf("%s: called by %s, want %s", test.what, c.by, clientSerial)
			}
			close(c.answer)
		}
		waiting.Wait()
	}
}
