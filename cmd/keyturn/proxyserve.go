// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/listen"
	"github.com/keyturn/keyturn/internal/plural"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/proxy"
)

// makeProxy makes a proxy that serves nothing yet.
func makeProxy(c *config.Proxy, source *proxySource, logger *slog.Logger) (*proxy.Proxy, error) {
	to, err := proxy.ParseTarget(c.To)
	if err != nil {
		return nil, usagef("--to: %w", err)
	}
	p, err := proxy.New(proxy.Config{
		To: to, TLS: source.tls, Store: source.store,
		TrustForwarded: c.TrustForwarded, IdentityHeader: c.IdentityHeader, MaxBody: c.MaxBody, MaxHeader: c.MaxHeader,
		HeaderTimeout: c.HeaderTimeout, StallTimeout: c.StallTimeout, IdleTimeout: c.IdleTimeout,
		AnswerTimeout: c.AnswerTimeout, TargetIdle: c.TargetIdle, DrainDelay: c.DrainDelay, DrainTimeout: c.DrainTimeout,
		Logger: logger,
	})
	if err != nil {
		return nil, &usageError{err}
	}
	return p, nil
}

// serveProxy runs a proxy until ctx ends, and then drains it.
func serveProxy(ctx context.Context, c *config.Proxy, errOut io.Writer) (err error) {
	hideMemory()
	logger := newLogger(c.Log, errOut)
	slog.SetDefault(logger)
	// Where nothing is read from files, a reload does nothing, and does not end the process.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	source, err := openProxySource(ctx, c, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	if err := source.askClients(c, logger); err != nil {
		return err
	}
	p, err := makeProxy(c, source, logger)
	if err != nil {
		return err
	}
	if c.Reuseport && source.first != nil {
		// Whoever listens gets all new connections: not before they can be served.
		if err := source.first(ctx); err != nil {
			return stopped(ctx, err)
		}
	}
	public, admin, err := proxyListeners(ctx, c)
	if err != nil {
		return err
	}
	defer listen.Close(append(public, admin)...)
	s := status.New(logger)
	s.Add(status.Part{Name: "certificate", Check: source.ready})
	s.Proxy(p, source.ends)
	if source.metrics != nil {
		source.metrics(s)
	}
	failed := make(chan error, len(public)+1)
	if admin != nil {
		stop := serveAdmin(admin, s, c.AdminRemote, logger, failed)
		defer stop()
	}
	for _, l := range public {
		go func() {
			if err := p.Serve(l); err != nil {
				failed <- err
			}
		}()
		logger.Info("keyturn proxy serves", "addr", l.Addr().String(), "to", c.To)
	}
	notify(logger, daemon.SdNotifyReady)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	notify(logger, daemon.SdNotifyStopping)
	logger.Info("keyturn proxy drains", "delay", max(0, c.DrainDelay), "timeout", c.DrainTimeout)
	if cut := p.Drain(context.WithoutCancel(ctx)); cut > 0 {
		err = errors.Join(err, fmt.Errorf("%s had not ended within --drain-timeout, %v, and had to be cut off", plural.Of(cut, "request"), c.DrainTimeout))
	}
	return err
}

// stopped is nil where the process was told to stop, else what failed.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// proxyListeners opens the ports, or takes those of systemd.
func proxyListeners(ctx context.Context, c *config.Proxy) (public []net.Listener, admin net.Listener, err error) {
	if public, admin, err = listen.Inherited(); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			listen.Close(append(public, admin)...)
		}
	}()
	if a, ok := localAddrOf(admin); ok && !c.AdminRemote && !a.IsLoopback() {
		return public, admin, usagef("the socket %s of systemd is %s: only loopback addresses are served, since what is said there is not encrypted and anybody may ask; --admin-remote serves it all the same", listen.AdminName, a)
	}
	open := listen.Port
	if c.Reuseport {
		open = listen.Shared
	}
	// The admin's comes first: once the others are open, connections are there.
	if admin == nil && c.Admin != "none" {
		if admin, err = open(ctx, c.Admin); err != nil {
			return public, nil, fmt.Errorf("--admin: %w", err)
		}
	}
	if len(public) > 0 {
		return public, admin, nil
	}
	for _, address := range c.Listen {
		l, err := open(ctx, address)
		if err != nil {
			return public, admin, fmt.Errorf("--listen: %w", err)
		}
		public = append(public, l)
	}
	return public, admin, nil
}

// localAddrOf returns the IP address that is listened on, if it is one.
func localAddrOf(l net.Listener) (net.IP, bool) {
	if l == nil {
		return nil, false
	}
	a, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil, false
	}
	return a.IP, true
}

// serveAdmin serves metrics and health until stop is called.
func serveAdmin(l net.Listener, s *status.Status, remote bool, logger *slog.Logger, failed chan<- error) (stop func()) {
	mux := http.NewServeMux()
	s.Handle(mux)
	var h http.Handler = mux
	if !remote {
		h = localOnly(mux)
	}
	server := &http.Server{
		Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("--admin: %w", err)
		}
	}()
	return func() { _ = server.Close() }
}
