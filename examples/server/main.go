// SPDX-License-Identifier: Apache-2.0

// Command server is an HTTPS server whose certificates come from a keyturn bus
// and turn while it runs. It is the way to integrate a service or a load
// balancer written in Go: the lines between the two rules are all that is
// needed.
//
// With no flags it is a replica of this user's dev instance, `keyturn serve
// --dev`, which made a directory for it; another host makes its own by `keyturn
// replica join`. It serves from its snapshot when bus and manager are gone, and
// catches up by itself when they return.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	_ "github.com/keyturn/keyturn/bus/dynamodb"  // the bus at dynamodb://
	_ "github.com/keyturn/keyturn/bus/jetstream" // and at nats:// and tls://
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/replica"
)

func main() {
	dev, err := config.DataDir(true, os.LookupEnv)
	if err != nil {
		dev = "keyturn-dev"
	}
	dir := flag.String("dir", filepath.Join(dev, "joined", "example-server"), "directory that `keyturn replica join` made")
	listen := flag.String("listen", "127.0.0.1:9443", "address to listen on")
	plain := flag.String("http", "", "address to answer the http-01 challenges of CAs on, which ask port 80 (default: none)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *dir, *listen, *plain); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, dir, listen, plain string) error {
	// ------------------------------------------------------------------------
	certificates, err := replica.Open(ctx, replica.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer certificates.Close()
	server := &http.Server{Addr: listen, Handler: http.HandlerFunc(hello), TLSConfig: certificates.Store().ServerConfig()}
	// ------------------------------------------------------------------------

	log.Printf("serving on https://%s/ with the certificates of %s", listen, dir)
	https := func() error { return server.ListenAndServeTLS("", "") }
	if plain == "" {
		return run(ctx, server, https)
	}
	// What else comes to the plain port is 404: a redirect would take the place of nil.
	challenges := &http.Server{Addr: plain, Handler: certificates.HTTPHandler(nil)}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error)
	go func() {
		defer stop() // one does not go on without the other
		ended <- run(ctx, challenges, challenges.ListenAndServe)
	}()
	err = run(ctx, server, https)
	stop()
	return errors.Join(err, <-ended)
}

// run serves until the context ends.
func run(ctx context.Context, server *http.Server, listen func() error) error {
	server.ReadHeaderTimeout = 10 * time.Second
	server.ErrorLog = slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug)
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(wait)
	})
	if err := listen(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello from %s over %s\n", r.TLS.ServerName, r.Proto)
}
