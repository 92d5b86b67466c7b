// SPDX-License-Identifier: Apache-2.0

// Command tls is a server of a protocol of its own over crypto/tls, which sends every
// line of up to 64 KiB back. Its certificate changes while it runs: put new files in the place of those
// before. Connections with the old certificate end after their next line, or are cut after
// the time of --drain.
//
//	go run "$(go env GOROOT)/src/crypto/tls/generate_cert.go" --host localhost,127.0.0.1
//	go run ./examples/tls --cert cert.pem --key key.pem
//	openssl s_client -quiet -CAfile cert.pem -connect localhost:8444
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/reload"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tls", flag.ContinueOnError)
	cert := flags.String("cert", "cert.pem", "file with the certificate chain, as PEM")
	key := flags.String("key", "key.pem", "file with the private key, as PEM")
	address := flags.String("listen", "localhost:8444", "address to listen on")
	within := flags.Duration("drain", time.Minute, "how long connections may go on with an old certificate")
	if err := flags.Parse(args); err != nil {
		return err
	}

	var store keyturn.Store
	watcher, err := reload.Watch(reload.Options{SIGHUP: true}, reload.KeyPair(&store, "echo", *cert, *key))
	if err != nil {
		return err
	}
	defer watcher.Close()
	config := store.ServerConfig()
	config.NextProtos = nil // it is not HTTP that is served

	// Without Drain this would be tls.Listen("tcp", *address, config).
	inner, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	listener := tls.NewListener(store.Listener(inner), config)
	defer context.AfterFunc(ctx, func() { listener.Close() })()

	events := make(chan keyturn.Event, 16)
	cancel := store.Observe(events)
	defer func() { cancel(); close(events) }()
	go func() {
		for e := range events {
			if e.Kind == keyturn.Swapped {
				go store.Drain(e.ID, *within)
			}
		}
	}()

	fmt.Fprintln(out, "serving on", listener.Addr())
	var open sync.WaitGroup
	defer open.Wait()
	defer store.DrainAll(0)
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		open.Go(func() { echo(conn) })
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	ctx := keyturn.ConnContext(context.Background(), conn)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if _, err := fmt.Fprintln(conn, lines.Text()); err != nil || keyturn.Draining(ctx) {
			return
		}
	}
}
