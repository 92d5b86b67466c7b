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
	"google.golang.org/grpc/peer"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/reload"
)

func server(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("grpc server", flag.ContinueOnError)
	cert := flags.String("cert", "server.pem", "file with the certificate chain, as PEM")
	key := flags.String("key", "server-key.pem", "file with the private key, as PEM")
	ca := flags.String("ca", "ca.pem", "file or directory with the CA certificates of clients")
	listen := flags.String("listen", "localhost:8445", "address to listen on")
	age := flags.Duration("age", 30*time.Second, "how long a connection lives; keep it below --drain of both sides")
	within := flags.Duration("drain", time.Minute, "how long connections may go on after a change")
	if err := flags.Parse(args); err != nil {
		return err
	}

	var manager keyturn.CertAuthManager
	manager.SetClientAuth(tls.RequireAndVerifyClientCert)
	store := manager.Store()
	watcher, err := reload.Watch(reload.Options{SIGHUP: true},
		reload.KeyPair(store, "server", *cert, *key),
		reload.CAs(*ca, func(pool *x509.CertPool) {
			manager.SetClientCAs(pool)
			go store.DrainAll(*within)
			fmt.Fprintln(out, "the CAs of clients are read")
		}))
	if err != nil {
		return err
	}
	defer watcher.Close()
	defer drain(store, *within)()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(manager.ServerConfig("h2"))),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: *age}),
		grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			fmt.Fprintf(out, "%s by %s\n", info.FullMethod, caller(ctx))
			return handle(ctx, request)
		}))
	healthpb.RegisterHealthServer(server, health.NewServer())
	defer context.AfterFunc(ctx, server.Stop)()
	fmt.Fprintln(out, "serving on", listener.Addr())
	return server.Serve(store.Listener(listener))
}

// caller returns the serial number of a client's certificate, which was verified.
func caller(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return serial(p)
	}
	return "nobody"
}

func serial(p *peer.Peer) string {
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return "nobody"
	}
	return info.State.PeerCertificates[0].SerialNumber.String()
}
