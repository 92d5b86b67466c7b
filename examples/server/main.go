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
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *dir, *listen); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, dir, listen string) error {
	// ------------------------------------------------------------------------
	certificates, err := replica.Open(ctx, replica.Config{Dir: dir})
	if err != nil {
		return err
	}
	defer certificates.Close()
	server := &http.Server{Addr: listen, Handler: http.HandlerFunc(hello), TLSConfig: certificates.Store().ServerConfig()}
	// ------------------------------------------------------------------------

	server.ReadHeaderTimeout = 10 * time.Second
	server.ErrorLog = slog.NewLogLogger(slog.Default().Handler(), slog.LevelDebug)
	stopped := make(chan error)
	context.AfterFunc(ctx, func() {
		wait, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(wait)
	})
	log.Printf("serving on https://%s/ with the certificates of %s", listen, dir)
	if err := server.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello from %s over %s\n", r.TLS.ServerName, r.Proto)
}
