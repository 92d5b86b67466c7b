// SPDX-License-Identifier: Apache-2.0

// Package hetzner sets records in the DNS of Hetzner Cloud.
package hetzner

import (
	"net/http"
	"time"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/hetzner"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

const (
	ttl = 60 // seconds; the least that the service takes
	// The service changes a zone in the background, in about a second.
	changeTime  = time.Minute
	changePause = time.Second
)

// Config is who may change which zones.
type Config struct {
	APIToken dns.Secret // of the Cloud project that has the zones
	// HTTPClient's transport is used; nil is the default one.
	HTTPClient *http.Client
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) dns.Provider {
	return lego.New(true, func() (challenge.Provider, error) {
		return hetzner.NewDNSProviderConfig(&hetzner.Config{
			APIToken: string(c.APIToken), TTL: ttl, HTTPClient: lego.Client(c.HTTPClient),
			PropagationTimeout: changeTime, PollingInterval: changePause,
		})
	})
}
