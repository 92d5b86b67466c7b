// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"log/slog"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/issuers"
	"github.com/keyturn/keyturn/replica"
)

// checkProxy says whether a proxy could be run, as far as that can be said without asking
// a CA, or the bus.
func checkProxy(c *config.Proxy) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	source, err := checkProxySource(c, quiet)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	if err := source.askClients(c, quiet); err != nil {
		return err
	}
	_, err = makeProxy(c, source, quiet)
	return err
}

// checkProxySource is openProxySource without asking.
func checkProxySource(c *config.Proxy, quiet *slog.Logger) (*proxySource, error) {
	store := new(keyturn.Store)
	s := &proxySource{store: store, tls: store.ServerConfig()}
	switch {
	case c.Dir != "":
		_, err := replica.ReadMembership(c.Dir)
		return s, err
	case c.Issuer == nil:
		return fileSource(c, quiet)
	case c.Issuer.Type == "acme":
		return s, checkProxyACME(c)
	}
	if _, _, err := proxyNames(c.Names); err != nil {
		return nil, err
	}
	ca, err := issuers.Open(*c.Issuer)
	if closer, ok := ca.(io.Closer); ok {
		s.stops = append(s.stops, closer.Close)
	}
	return s, err
}
