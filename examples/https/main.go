// SPDX-License-Identifier: Apache-2.0

// Command https is a server of net/http, over HTTP/1.1 and HTTP/2, whose certificate
// changes while it runs: put new files in the place of those before. New connections get
// the new certificate at once. Those that are open are asked to close, by "Connection:
// close" and GOAWAY, and are cut if they still are there after the time of --drain.
//
//	go run "$(go env GOROOT)/src/crypto/tls/generate_cert.go" --host localhost,127.0.0.1
//	go run ./examples/https --cert cert.pem --key key.pem
//	curl --cacert cert.pem https://localhost:8443/
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
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
	flags := flag.NewFlagSet("https", flag.ContinueOnError)
	cert := flags.String("cert", "cert.pem", "file with the certificate chain, as PEM")
	key := flags.String("key", "key.pem", "file with the private key, as PEM")
	listen := flags.String("listen", "localhost:8443", "address to listen on")
	within := flags.Duration("drain", time.Minute, "how long connections may go on with an old certificate")
	if err := flags.Parse(args); err != nil {
		return err
	}

	var store keyturn.Store
	watcher, err := reload.Watch(reload.Options{SIGHUP: true}, reload.KeyPair(&store, "web", *cert, *key))
	if err != nil {
		return err
	}
	defer watcher.Close()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(hello),
		TLSConfig:         store.ServerConfig(),
		ConnContext:       keyturn.ConnContext,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       *within / 2, // what has no requests is not told that it drains
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()

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

	fmt.Fprintf(out, "serving on https://%s/\n", listener.Addr())
	if err := server.ServeTLS(store.Listener(listener), "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	if keyturn.Draining(r.Context()) {
		w.Header().Set("Connection", "close") // in HTTP/2: GOAWAY
	}
	fmt.Fprintf(w, "hello over %s\n", r.Proto)
}
