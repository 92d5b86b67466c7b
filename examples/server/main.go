// SPDX-License-Identifier: Apache-2.0

// Command server is an HTTPS server whose certificates come from a keyturn bus
// and turn while it runs. It is the way to integrate a service or a load
// balancer written in Go: the lines between the two rules are all that is
// needed.
//
// With no flags it joins the dev instance of this user, `keyturn serve --dev`.
// It serves from its snapshot when bus and manager are gone, and catches up by
// itself when they return.
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

	"github.com/keyturn/keyturn/bus"
	_ "github.com/keyturn/keyturn/bus/jetstream" // for nats:// and tls:// in bus.url
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/replica"
)

func main() {
	dev, err := config.DataDir(true, os.LookupEnv)
	if err != nil {
		dev = "keyturn-dev"
	}
	dir := flag.String("dir", dev, "directory with managers.pub, groups/, replica.creds and bus.url")
	snapshot := flag.String("snapshot", "", "directory of this server's snapshot (default: replicas/example-server in --dir)")
	listen := flag.String("listen", "127.0.0.1:9443", "address to listen on")
	flag.Parse()
	if *snapshot == "" {
		*snapshot = filepath.Join(*dir, "replicas", "example-server")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, *dir, *snapshot, *listen); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, dir, snapshot, listen string) error {
	// ------------------------------------------------------------------------
	conn, err := bus.OpenDir(dir, bus.Options{}) // returns at once, whether the bus is up or not
	if err != nil {
		return err
	}
	defer conn.Close()
	certificates, err := replica.Open(ctx, replica.Config{Dir: dir, Snapshot: snapshot, Log: conn})
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
