// SPDX-License-Identifier: Apache-2.0

// Command acme is a server of net/http with a certificate of Let's Encrypt, or of
// another CA that speaks ACME, which it obtains by itself and renews while it runs. The
// names have to lead to the machine, and its port 443 to the program:
//
//	go run ./examples/acme --agree --directory letsencrypt-staging example.com www.example.com
//	curl --insecure https://example.com/
//
// Each certificate that comes new is told. Where all is well, leave the directory out.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/acme"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	config, listen, err := parse(args)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	certificates, err := config.Open(ctx)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	defer certificates.Close()

	events := make(chan keyturn.Event, 16)
	cancel := certificates.Store().Observe(events)
	told := make(chan struct{})
	go func() {
		defer close(told)
		for e := range events {
			if info, ok := certificates.Store().Info(e.ID); ok && e.Kind == keyturn.Swapped {
				fmt.Fprintf(out, "a new certificate until %s\n", info.NotAfter.Format(time.DateTime))
			}
		}
	}()
	defer func() { cancel(); close(events); <-told }()

	server := &http.Server{
		Handler:           http.HandlerFunc(hello),
		TLSConfig:         certificates.TLSConfig(),
		ReadHeaderTimeout: 10 * time.Second,
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintf(out, "serving on %s\n", listener.Addr())
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// parse reads what most programs have in their settings.
func parse(args []string) (config acme.Config, listen string, err error) {
	flags := flag.NewFlagSet("acme", flag.ContinueOnError)
	flags.StringVar(&listen, "listen", ":443", "address to listen on")
	flags.StringVar(&config.HTTPAddr, "http", "", "address to redirect from plain HTTP on, such as :80")
	flags.StringVar(&config.Directory, "directory", "letsencrypt", "CA: letsencrypt, letsencrypt-staging, zerossl, google or a URL")
	flags.BoolVar(&config.TermsAgreed, "agree", false, "agree to the CA's terms of service")
	flags.StringVar(&config.Dir, "dir", "", "directory of account and certificate (default: $XDG_STATE_HOME/keyturn-acme)")
	flags.StringVar(&config.Challenge, "challenge", "tls-alpn-01", "how control of the names is proven, or http-01")
	flags.DurationVar(&config.RenewBefore, "renew-before", 0, "how long before its end a certificate is renewed at the latest (default: when the CA says)")
	contact := flags.String("contact", "", "mail address for the CA")
	roots := flags.String("roots", "", "file with the CA's own roots, as PEM, if it is a private one")
	resolver := flags.String("resolver", "", "HOST:PORT of a name server instead of the system's")
	if err := flags.Parse(args); err != nil {
		return config, "", err
	}
	config.Names = flags.Args()
	if *contact != "" {
		config.Contact = strings.Split(*contact, ",")
	}
	if *resolver != "" {
		config.Resolvers = []string{*resolver}
	}
	if *roots != "" {
		text, err := os.ReadFile(*roots)
		if err != nil {
			return config, "", err
		}
		config.Roots = x509.NewCertPool()
		if !config.Roots.AppendCertsFromPEM(text) {
			return config, "", fmt.Errorf("%s has no certificates", *roots)
		}
	}
	return config, listen, nil
}

func hello(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello over %s\n", r.Proto) }
