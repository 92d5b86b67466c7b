// SPDX-License-Identifier: Apache-2.0

// Command client is a client of net/http whose own certificate, and whose trust in the
// server, change while it runs: put new files in the place of those before. It asks for a
// page again and again. When its certificate or its trust has changed it ends its idle
// connections, so that the next request makes a new one; those in use end with --drain.
//
//	go run ./examples/client --cert client.pem --key client-key.pem --ca ca.pem https://localhost:8443/
//
// examples/README.md makes such files.
//
// One Store and one Trust are for one destination: a program with several has a pair of
// them, and a Transport, for each.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
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
	flags := flag.NewFlagSet("client", flag.ContinueOnError)
	cert := flags.String("cert", "client.pem", "file with the client's certificate chain, as PEM")
	key := flags.String("key", "client-key.pem", "file with its private key, as PEM")
	ca := flags.String("ca", "ca.pem", "file or directory with the CA certificates that the server is verified with")
	every := flags.Duration("every", time.Second, "time between two requests")
	within := flags.Duration("drain", time.Minute, "how long connections in use may go on with an old certificate")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("give one URL to ask for, such as https://localhost:8443/")
	}

	var store keyturn.Store
	var trust keyturn.Trust
	trusted := make(chan struct{}, 1)
	watcher, err := reload.Watch(reload.Options{SIGHUP: true},
		reload.KeyPair(&store, "client", *cert, *key),
		reload.CAs(*ca, func(pool *x509.CertPool) {
			trust.SetRootCAs(pool)
			select {
			case trusted <- struct{}{}:
			default: // it is known that something changed
			}
		}))
	if err != nil {
		return err
	}
	defer watcher.Close()
	<-trusted // Watch has read them
	swapped := make(chan keyturn.Event, 16)
	cancel := store.Observe(swapped)
	defer cancel()

	config := store.ClientConfig(&tls.Config{NextProtos: []string{"h2", "http/1.1"}})
	transport := &http.Transport{
		DialTLSContext:    trust.Dialer(config, store.Dialer(nil)),
		ForceAttemptHTTP2: true,
	}
	defer store.DrainAll(0)
	client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	for {
		get(ctx, client, flags.Arg(0), out)
		select {
		case <-ctx.Done():
			return nil
		case <-swapped:
			fmt.Fprintln(out, "the certificate has changed")
			transport.CloseIdleConnections()
			go store.Drain("client", *within)
		case <-trusted:
			fmt.Fprintln(out, "the trusted CAs have changed")
			transport.CloseIdleConnections()
			go store.DrainAll(*within)
		case <-time.After(*every):
		}
	}
}

func get(ctx context.Context, client *http.Client, url string, out io.Writer) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		fmt.Fprintln(out, "failed:", err)
		return
	}
	response, err := client.Do(request)
	if err != nil {
		fmt.Fprintln(out, "failed:", err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		fmt.Fprintln(out, "failed:", err)
		return
	}
	fmt.Fprintf(out, "%s: %q\n", response.Status, body)
}
