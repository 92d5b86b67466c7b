// SPDX-License-Identifier: Apache-2.0

// Package cloudflare sets records at Cloudflare.
package cloudflare

import (
	"net/http"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/cloudflare"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

// ttl is the least that the service takes, in seconds.
const ttl = 120

// Config is who may change which zones.
type Config struct {
	APIToken  dns.Secret // that may edit DNS, and read zones if there is no ZoneToken
	ZoneToken dns.Secret // that may read zones; may be empty
	// HTTPClient's transport is used; nil is the default one.
	HTTPClient *http.Client
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) dns.Provider {
	return lego.New(true, func() (challenge.Provider, error) {
		return cloudflare.NewDNSProviderConfig(&cloudflare.Config{
			AuthToken: string(c.APIToken), ZoneToken: string(c.ZoneToken), TTL: ttl, HTTPClient: lego.Client(c.HTTPClient),
		})
	})
}
