// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// service is the name of each copy of a service whose copies call each other.
const service = "spiffe://example.org/ns/prod/sa/health"

// both is a service that answers and makes calls, with one Source for both: its
// certificates are issued when they are needed, by a CA that here is gone with the process.
func both(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("grpc both", flag.ContinueOnError)
	lifetime := flags.Duration("lifetime", 5*time.Minute, "how long certificates are valid")
	age := flags.Duration("age", time.Minute, "how long a connection lives")
	every := flags.Duration("every", time.Second, "time between two calls")
	listen := flags.String("listen", "localhost:8445", "address to listen on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ca, err := localca.New(localca.Config{Lifetime: *lifetime})
	if err != nil {
		return err
	}
	source := &ondemand.Source{Issuer: ca, CommonName: service}
	defer source.Close()
	var trust keyturn.Trust
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root())
	trust.SetClientCAs(roots)
	trust.SetRootCAs(roots)
	trust.SetClientAuth(tls.RequireAndVerifyClientCert)
	if err := trust.SetPeerNames(service); err != nil {
		return err
	}

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(trust.ServerConfig(&tls.Config{
			GetCertificate: source.GetCertificate,
			NextProtos:     []string{"h2"},
		}))),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: *age}),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			fmt.Fprintf(out, "%s by %s\n", info.FullMethod, caller(ctx))
			return handle(ctx, request)
		}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer server.Stop()

	config := trust.ClientConfig(service)
	config.GetClientCertificate = source.GetClientCertificate
	config.ClientSessionCache = nil // each connection sees the server's certificate of now
	conn, err := grpc.NewClient(listener.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultServiceConfig(retry))
	if err != nil {
		return err
	}
	check(ctx, conn, *every, out)
	if err := conn.Close(); err != nil {
		return err
	}
	server.Stop()
	return <-served
}
