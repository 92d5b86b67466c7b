// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/acme"
	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/issuers"
	"github.com/keyturn/keyturn/internal/status"
	"github.com/keyturn/keyturn/ondemand"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/solver"
)

// errNoCertificate says that there is none yet.
var errNoCertificate = errors.New("there is none yet")

// proxyIssuers are the types of CA that a proxy can ask by itself.
func proxyIssuers() []string { return slices.Sorted(slices.Values(append(issuers.Types(), "acme"))) }

// issuerSource has certificates issued as they are asked for.
func issuerSource(c *config.Proxy, logger *slog.Logger) (*proxySource, error) {
	names, exact, err := proxyNames(c.Names)
	if err != nil {
		return nil, err
	}
	ca, err := issuers.Open(*c.Issuer)
	if err != nil {
		return nil, fmt.Errorf("--issuer: %w", err)
	}
	names.Issuer, names.Logger = ca, logger
	names.KeyType, names.Lifetime, names.RenewBefore = c.KeyType, time.Duration(c.Lifetime), time.Duration(c.RenewBefore)
	if c.Cache != "" {
		names.Cache = ondemand.Dir(c.Cache)
	}
	store := new(keyturn.Store)
	s := &proxySource{
		store: store, ends: func() time.Time { return time.Time{} },
		tls: &tls.Config{
			MinVersion: tls.VersionTLS12, CipherSuites: store.ServerConfig().CipherSuites,
			NextProtos: []string{"h2", "http/1.1"}, GetCertificate: names.GetCertificate,
		},
	}
	if closer, ok := ca.(io.Closer); ok {
		s.stops = append(s.stops, closer.Close)
	}
	s.stops = append(s.stops, names.Close)
	s.obtain(names, exact)
	return s, nil
}

// proxyNames is a Source for patterns. URIs are part of every certificate; what is one name
// is returned, since its certificate can be obtained before anybody asks.
func proxyNames(patterns []string) (source *ondemand.Source, exact []string, err error) {
	source = new(ondemand.Source)
	var allowed []string
	for _, p := range patterns {
		if strings.Contains(p, "://") {
			source.Names = append(source.Names, p)
			continue
		}
		allowed = append(allowed, p)
		if !strings.ContainsAny(p, "*/") {
			exact = append(exact, p)
		}
	}
	if len(allowed) == 0 {
		return nil, nil, usagef("--name has URIs alone, and clients ask for none: give a DNS name or an IP address beside")
	}
	if source.Allow, err = ondemand.ParseNames(allowed...); err != nil {
		return nil, nil, usagef("--name: %w", err)
	}
	if len(exact) == 1 && len(allowed) == 1 {
		source.CommonName = exact[0] // and so for clients that send no name
	}
	return source, exact, nil
}

// obtainAgain is the time between two attempts to have a first certificate. The Source
// itself asks a CA that fails less often.
const obtainAgain = 500 * time.Millisecond

// obtain has certificates issued for names before the first client asks. The source is
// ready once each was; at once where there are none.
func (s *proxySource) obtain(source *ondemand.Source, names []string) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var missing atomic.Int64
	missing.Store(int64(len(names)))
	for _, name := range names {
		all.Go(func() {
			tick := time.NewTicker(obtainAgain)
			defer tick.Stop()
			for ctx.Err() == nil {
				if _, err := source.Certificate(ctx, name); err == nil {
					missing.Add(-1)
					return
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
				}
			}
		})
	}
	s.ready = func() error {
		if missing.Load() > 0 {
			return errNoCertificate
		}
		return nil
	}
	s.first = func(ctx context.Context) error { return untilReady(ctx, s.ready) }
	s.stops = append(s.stops, func() error {
		cancel()
		all.Wait()
		return nil
	})
}

// untilReady waits until ready returns nil.
func untilReady(ctx context.Context, ready func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the first certificate: %w", err)
		}
	}
}

// replicaSource follows the bus, as a joined directory says.
func replicaSource(ctx context.Context, c *config.Proxy, logger *slog.Logger) (*proxySource, error) {
	r, err := replica.Open(ctx, replica.Config{Dir: c.Dir, Logger: logger, Program: thisVersion().Version})
	if err != nil {
		return nil, err
	}
	s := &proxySource{
		store: r.Store(), tls: r.Store().ServerConfig(), ends: func() time.Time { return endOf(r.Store()) },
		metrics: func(s *status.Status) { s.Replica(r) },
		stops:   []func() error{r.Close},
	}
	s.ready = func() error {
		if r.Store().Len() == 0 {
			return errNoCertificate
		}
		return nil
	}
	s.first = func(ctx context.Context) error { return untilReady(ctx, s.ready) }
	return s, nil
}

// acmeSource obtains one certificate for all names, and proves control of them by what it
// serves itself.
func acmeSource(ctx context.Context, c *config.Proxy, logger *slog.Logger) (*proxySource, error) {
	if err := checkProxyACME(c); err != nil {
		return nil, err
	}
	a := c.Issuer.ACME
	config := acme.Config{
		Names: c.Names, Directory: a.Directory, TermsAgreed: a.TermsAgreed, Contact: a.Contact, Profile: a.Profile, PreferredChain: a.PreferredChain,
		Key: c.KeyType, RenewBefore: time.Duration(c.RenewBefore), SkipCAA: a.SkipCAA, Dir: c.Cache, Logger: logger,
	}
	if a.EAB != nil {
		config.EAB = &acme.EAB{KeyID: a.EAB.KeyID, HMACKey: a.EAB.HMACKey}
	}
	if a.Roots != "" {
		config.Roots = x509.NewCertPool()
		config.Roots.AppendCertsFromPEM([]byte(a.Roots)) // config has read them
	}
	server, err := config.Open(ctx)
	if err != nil {
		return nil, err
	}
	s := &proxySource{
		store: server.Store(), tls: server.TLSConfig(), ends: func() time.Time { return endOf(server.Store()) },
		ready: func() error {
			if server.Store().Len() > 0 {
				return nil
			}
			if why := server.Status().Failure; why != "" {
				return fmt.Errorf("%w: %s", errNoCertificate, why)
			}
			return errNoCertificate
		},
		stops: []func() error{server.Close},
	}
	return s, nil
}

// checkProxyACME refuses what a proxy cannot do by itself.
func checkProxyACME(c *config.Proxy) error {
	a := c.Issuer.ACME
	switch {
	case cmp.Or(a.Challenge, solver.TLSALPN01) != solver.TLSALPN01:
		return usagef("--issuer acme: challenge is %s: a proxy proves control of names by tls-alpn-01, on port 443; use --dir for the others", a.Challenge)
	case a.AccountKey != "" || a.Limits != nil:
		return usagef("--issuer acme: account_key and limits are a manager's; use --dir")
	case c.Lifetime != 0:
		return usagef("--lifetime: an ACME CA does not let itself be asked for one; set profile")
	}
	return nil
}
