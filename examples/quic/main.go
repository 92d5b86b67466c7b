// SPDX-License-Identifier: Apache-2.0

// Command quic is a server and a client of a protocol of its own over QUIC, by quic-go. The
// server's certificate changes while it runs: put new files in the place of those before. A
// connection that resumes no session gets the new one. Clients may resume sessions, and send
// with their first packets (0-RTT), as with any other config.
//
//	cd examples/quic # a module of its own
//	go run "$(go env GOROOT)/src/crypto/tls/generate_cert.go" --host localhost,127.0.0.1
//	go run . server --cert cert.pem --key key.pem
//	go run . client --ca cert.pem
//
// Drain knows connections of TCP only: end those of QUIC by CloseWithError. Compromised
// ends resumption and 0-RTT here as well.
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
)

const protocol = "echo" // of TLS (ALPN), which QUIC wants to have

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
		}
	}
	return errors.New("say what to run, server or client; --help after it lists its flags")
}
