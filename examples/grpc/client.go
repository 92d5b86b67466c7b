// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/reload"
)

// retry has calls tried again whose connection was lost before the answer began. Give it to
// methods that may be called twice.
const retry = `{"methodConfig": [{
	"name": [{"service": "grpc.health.v1.Health"}],
	"retryPolicy": {
		"maxAttempts": 5,
		"initialBackoff": "0.02s",
		"maxBackoff": "1s",
		"backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]
	}
}]}`

func client(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("grpc client", flag.ContinueOnError)
	cert := flags.String("cert", "client.pem", "file with the certificate chain, as PEM")
	key := flags.String("key", "client-key.pem", "file with the private key, as PEM")
	ca := flags.String("ca", "ca.pem", "file or directory with the CA certificates of the server")
	connect := flags.String("connect", "localhost:8445", "address to connect to")
	every := flags.Duration("every", time.Second, "time between two calls")
	within := flags.Duration("drain", time.Minute, "how long connections may go on after a change")
	if err := flags.Parse(args); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(*connect)
	if err != nil {
		return err
	}

	var manager keyturn.CertAuthManager
	store := manager.Store()
	watcher, err := reload.Watch(reload.Options{SIGHUP: true},
		reload.KeyPair(store, "client", *cert, *key),
		reload.CAs(*ca, func(pool *x509.CertPool) {
			manager.SetRootCAs(pool)
			go store.DrainAll(*within)
			fmt.Fprintln(out, "the CAs of the server are read")
		}))
	if err != nil {
		return err
	}
	defer watcher.Close()
	defer drain(store, *within)()

	config := manager.ClientConfig(host)
	config.ClientSessionCache = nil // each connection sees the server's certificate of now
	dial := store.Dialer(nil)
	conn, err := grpc.NewClient(*connect,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, "tcp", address) }),
		grpc.WithDefaultServiceConfig(retry))
	if err != nil {
		return err
	}
	defer conn.Close()
	check(ctx, conn, *every, out)
	return nil
}

// check makes calls until ctx ends.
func check(ctx context.Context, conn *grpc.ClientConn, every time.Duration, out io.Writer) {
	for ctx.Err() == nil {
		var server peer.Peer
		answer, err := healthpb.NewHealthClient(conn).Check(ctx, new(healthpb.HealthCheckRequest), grpc.Peer(&server))
		if err != nil {
			fmt.Fprintln(out, "failed:", err)
		} else {
			fmt.Fprintf(out, "%s by %s\n", answer.Status, serial(&server))
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}
