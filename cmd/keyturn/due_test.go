// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/datadir"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/manager"
)

// idleServer is a program for scripts: idleserver DIR is "keyturn serve" whose
// manager does nothing, so that what is due waits for a command.
func idleServer() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := idle(ctx, os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func idle(ctx context.Context, dir string) (err error) {
	in := &instance{
		config: serveConfig{Local: config.Local{Data: dir, NATS: "127.0.0.1:0"}}, logger: slog.New(slog.DiscardHandler), out: io.Discard,
	}
	in.status = status.New(in.logger)
	defer func() { err = cmp.Or(err, in.stop()) }()
	if in.dir, err = datadir.Open(dir, datadir.Production); err != nil {
		return err
	}
	in.onStop(in.dir.Close)
	if err := in.setTenant(); err != nil {
		return err
	}
	if err := in.startBus(ctx); err != nil {
		return err
	}
	if err := in.makeManager(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// checkIns is a program for scripts: checkins DIR takes check-ins until it is
// interrupted. The file url has its address, and log a line for each: the path,
// and what was posted.
func checkIns() {
	log.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	dir := os.Args[1]
	must(os.MkdirAll(dir, 0o700))
	var mu sync.Mutex
	file, err := os.Create(filepath.Join(dir, "log"))
	must(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	// Complete when it is there.
	must(os.WriteFile(filepath.Join(dir, "new"), fmt.Appendf(nil, "http://%s", l.Addr()), 0o600))
	must(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "url")))
	go func() {
		must(http.Serve(l, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			must(err)
			mu.Lock()
			defer mu.Unlock()
			_, err = fmt.Fprintf(file, "%s %s\n", r.URL.Path, body)
			must(err)
		})))
	}()
	<-ctx.Done()
}

// scriptMark marks certificates as a manager does that turns a group's key.
func scriptMark(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg, args, 2, 100, "mark DIR ID…")
	d := datadir.At(ts.MkAbs(args[0]))
	url, err := d.URL()
	ts.Check(err)
	conn, err := jetstream.Connect(jetstream.Options{URL: url, Creds: d.File(bus.ManagerCreds), Logger: slog.New(slog.DiscardHandler)})
	ts.Check(err)
	defer conn.Close()
	identity, err := d.Identity()
	ts.Check(err)
	m, err := manager.New(manager.Config{Log: conn, Identity: identity, Logger: slog.New(slog.DiscardHandler)})
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, id := range args[1:] {
		ts.Check(m.Mark(ctx, id, event.ReasonGroupKey))
	}
}
