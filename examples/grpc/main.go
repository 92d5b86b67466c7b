// SPDX-License-Identifier: Apache-2.0

// Command grpc is a server and a client of gRPC with mutual TLS. The certificates of both,
// and the CAs that they trust, change while they run: put new files in the place of those
// before. No call fails: the server lets connections live for --age, then has the client make
// a new one, as gRPC does by itself (GOAWAY). What is still there after --drain is cut off,
// and calls that had no answer yet are tried again, as the client's service config says. The
// server answers health checks, so that it needs no protoc.
//
//	cd examples/grpc # a module of its own
//	go run . server --cert server.pem --key server-key.pem --ca ca.pem
//	go run . client --cert client.pem --key client-key.pem --ca ca.pem
//
// ../README.md makes such files. To change the CA, give both sides the old one and the new
// one, then change the certificates, then take the old one away.
//
//	go run . both
//
// This one is a service that makes calls and answers them, and needs no files: its
// certificate is issued when it is first needed, for five minutes, and renewed.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/keyturn/keyturn"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] {
		case "server":
			return server(ctx, args[1:], out)
		case "client":
			return client(ctx, args[1:], out)
		case "both":
			return both(ctx, args[1:], out)
		}
	}
	return errors.New("say what to run, server, client or both; --help after it lists its flags")
}

// drain ends the connections that use the certificate of before, whenever there is a new
// one.
func drain(store *keyturn.Store, within time.Duration) (stop func()) {
	events := make(chan keyturn.Event, 16)
	cancel := store.Observe(events)
	go func() {
		for e := range events {
			if e.Kind == keyturn.Swapped {
				go store.Drain(e.ID, within)
			}
		}
	}()
	return func() { cancel(); close(events) }
}
