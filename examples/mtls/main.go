// SPDX-License-Identifier: Apache-2.0

// Command mtls is two services that talk over HTTP with mutual TLS: web calls db. Each has
// its certificate issued by the company's CA when it is first needed, renews it in the
// background, and knows the other by its SPIFFE ID. Certificates live for five minutes, and
// no request fails when they change.
//
//	go run ./examples/mtls
//	go run ./examples/mtls --lifetime 10s
//	go run ./examples/mtls --as spiffe://example.org/ns/prod/sa/guest # is refused
//
// Here both services, and a CA that is gone with them, are one process. Real ones are two,
// each with a Source of its own, and an Issuer that leads to the CA of all.
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
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// Whom each believes: db any service "web", in whatever namespace it is, web one db.
const (
	callers = "spiffe://example.org/ns/*/sa/web"
	db      = "spiffe://example.org/ns/prod/sa/db"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("mtls", flag.ContinueOnError)
	lifetime := flags.Duration("lifetime", 5*time.Minute, "how long certificates are valid")
	every := flags.Duration("every", time.Second, "time between two requests")
	as := flags.String("as", "spiffe://example.org/ns/prod/sa/web", "name of the service that calls")
	listen := flags.String("listen", "localhost:8446", "address to listen on")
	if err := flags.Parse(args); err != nil {
		return err
	}
	ca, err := localca.New(localca.Config{Lifetime: *lifetime})
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca.Root())

	source := &ondemand.Source{Issuer: ca, CommonName: db}
	defer source.Close()
	server, address, err := serve(*listen, source, roots)
	if err != nil {
		return err
	}
	defer server.Close()

	caller := &ondemand.Source{Issuer: ca, CommonName: *as}
	defer caller.Close()
	client := newClient(caller, roots)
	for ctx.Err() == nil {
		if err := call(ctx, client, "https://"+address, out); err != nil {
			fmt.Fprintln(out, "failed:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(*every):
		}
	}
	return nil
}

// serve is db.
func serve(listen string, source *ondemand.Source, roots *x509.CertPool) (server *http.Server, address string, err error) {
	var clients keyturn.Trust
	clients.SetClientCAs(roots)
	clients.SetClientAuth(tls.RequireAndVerifyClientCert)
	if err := clients.SetPeerNames(callers); err != nil {
		return nil, "", err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, "", err
	}
	server = &http.Server{
		TLSConfig: clients.ServerConfig(&tls.Config{
			GetCertificate: source.GetCertificate,
			NextProtos:     []string{"h2", "http/1.1"},
		}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "called by %s", describe(r.TLS))
		}),
		ErrorLog: log.New(io.Discard, "", 0), // the callers that are refused say so
	}
	go func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			log.Print(err)
		}
	}()
	return server, listener.Addr().String(), nil
}

// newClient is web.
func newClient(source *ondemand.Source, roots *x509.CertPool) *http.Client {
	var servers keyturn.Trust
	servers.SetRootCAs(roots)
	config := servers.ClientConfig(db)
	config.GetClientCertificate = source.GetClientCertificate
	// Each request shows the certificates of now. Otherwise a connection keeps those with
	// which it began, and a session those of its first connection.
	config.ClientSessionCache = nil
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   config,
		ForceAttemptHTTP2: true,
		DisableKeepAlives: true,
	}}
}

func call(ctx context.Context, client *http.Client, url string, out io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s, answered by %s\n", body, describe(response.TLS))
	return err
}

// describe says who is at the other end.
func describe(state *tls.ConnectionState) string {
	leaf := state.PeerCertificates[0]
	return fmt.Sprintf("%s with %x", leaf.URIs[0], leaf.SerialNumber)
}
