// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/reload"
)

// A proxySource is where a proxy's certificates come from.
type proxySource struct {
	store *keyturn.Store // knows the connections, and has the certificates if it is not on demand
	tls   *tls.Config
	// ready returns nil once there is a certificate. It does not wait.
	ready func() error
	// first waits for that; nil if it comes only to who listens.
	first func(context.Context) error
	// metrics adds what is told of it beside; nil is nothing.
	metrics func(*status.Status)
	// ends is when the first certificate ends; zero if that is not known.
	ends func() time.Time

	stops []func() error
}

func (s *proxySource) close() error {
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		errs = append(errs, s.stops[i]())
	}
	return errors.Join(errs...)
}

// openProxySource opens what c names.
func openProxySource(ctx context.Context, c *config.Proxy, logger *slog.Logger) (*proxySource, error) {
	switch {
	case c.Dir != "":
		return replicaSource(ctx, c, logger)
	case c.Issuer == nil:
		return fileSource(c, logger)
	case c.Issuer.Type == "acme":
		return acmeSource(ctx, c, logger)
	}
	return issuerSource(c, logger)
}

// fileSource reads the certificate from files.
func fileSource(c *config.Proxy, logger *slog.Logger) (*proxySource, error) {
	store := new(keyturn.Store)
	watcher, err := reload.Watch(reload.Options{SIGHUP: true, Logger: logger}, reload.KeyPair(store, c.Cert, c.Cert, c.Key))
	if err != nil {
		return nil, err
	}
	store.SetDefault(c.Cert)
	return &proxySource{
		store: store, tls: store.ServerConfig(), ends: func() time.Time { return endOf(store) },
		ready: func() error { return nil },
		first: func(context.Context) error { return nil },
		stops: []func() error{watcher.Close},
	}, nil
}

// endOf returns when the first certificate of a store ends; zero if there is none.
func endOf(store *keyturn.Store) (first time.Time) {
	for _, info := range store.All() {
		if first.IsZero() || info.NotAfter.Before(first) {
			first = info.NotAfter
		}
	}
	return first
}

// askClients has a source's configuration ask clients for certificates, as c says.
func (s *proxySource) askClients(c *config.Proxy, logger *slog.Logger) error {
	modes := map[string]tls.ClientAuthType{"request": tls.VerifyClientCertIfGiven, "require": tls.RequireAndVerifyClientCert}
	mode, ok := modes[c.ClientAuth]
	if !ok {
		return nil
	}
	trust := new(keyturn.Trust)
	trust.SetClientAuth(mode)
	if err := trust.SetPeerNames(c.AllowPeers...); err != nil {
		return &usageError{err}
	}
	var drains sync.WaitGroup
	first := true
	watcher, err := reload.Watch(reload.Options{SIGHUP: true, Logger: logger}, reload.CAs(c.ClientCA, func(pool *x509.CertPool) {
		trust.SetClientCAs(pool)
		if first {
			first = false
			return
		}
		// Who was let in by a CA that is gone has an open connection still.
		drains.Go(func() { s.store.DrainAll(c.DrainTimeout) })
	}))
	if err != nil {
		return err
	}
	s.stops = append(s.stops, func() error {
		err := watcher.Close()
		drains.Wait()
		return err
	})
	s.tls = trust.ServerConfig(s.tls)
	return nil
}
