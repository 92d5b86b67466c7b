// SPDX-License-Identifier: Apache-2.0

// Command cron is an HTTPS server whose certificate is renewed by others, such as a job
// of cron, into the same two files. It reads them on SIGHUP and every --interval, and calls
// Update. Files that are bad are reported, and the certificate before them stays.
//
//	go run "$(go env GOROOT)/src/crypto/tls/generate_cert.go" --host localhost,127.0.0.1
//	go run ./examples/cron --cert cert.pem --key key.pem
//	curl --cacert cert.pem https://localhost:8443/
//
// It reads files with nothing but the standard library. Package reload does more: it
// watches them, and is not misled by files that are half-written.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
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
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("cron", flag.ContinueOnError)
	cert := flags.String("cert", "cert.pem", "file with the certificate chain, as PEM")
	key := flags.String("key", "key.pem", "file with the private key, as PEM")
	listen := flags.String("listen", "localhost:8443", "address to listen on")
	interval := flags.Duration("interval", time.Minute, "time between two looks at the files")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *interval <= 0 {
		return errors.New("--interval must be more than 0")
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	var manager keyturn.CertManager
	events := make(chan keyturn.Event, 16)
	cancel := manager.Store().Observe(events)
	defer cancel()
	update(&manager, *cert, *key, out)

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") }),
		TLSConfig:         &tls.Config{GetCertificate: manager.GetCertificateFunc()},
		ReadHeaderTimeout: 10 * time.Second,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	defer server.Close()
	fmt.Fprintf(out, "serving on https://%s/\n", listener.Addr())

	look := time.NewTicker(*interval)
	defer look.Stop()
	for {
		select {
		case <-hangup:
			update(&manager, *cert, *key, out)
		case <-look.C:
			update(&manager, *cert, *key, out)
		case e := <-events:
			switch e.Kind {
			case keyturn.Swapped:
				fmt.Fprintln(out, "new certificate, valid until", manager.GetCertificate().Leaf.NotAfter)
			case keyturn.Refused:
				fmt.Fprintln(out, "refused:", e.Err)
			}
		case err := <-ended:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// update makes what is in the files the certificate, unless it is so already.
func update(manager *keyturn.CertManager, certFile, keyFile string, out io.Writer) {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		fmt.Fprintln(out, "not read:", err)
		return
	}
	current := manager.GetCertificate().Certificate
	if len(current) == 0 || !bytes.Equal(cert.Certificate[0], current[0]) {
		manager.Update(cert)
	}
}
