// SPDX-License-Identifier: Apache-2.0

// Package digitalocean sets records at DigitalOcean.
package digitalocean

import (
	"net/http"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/digitalocean"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

// ttl is the least that the service takes, in seconds.
const ttl = 30

// Config is who may change which zones.
type Config struct {
	APIToken dns.Secret
	// HTTPClient's transport is used; nil is the default one.
	HTTPClient *http.Client
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) dns.Provider {
	return lego.New(true, func() (challenge.Provider, error) {
		return digitalocean.NewDNSProviderConfig(&digitalocean.Config{
			AuthToken: string(c.APIToken), TTL: ttl, HTTPClient: lego.Client(c.HTTPClient),
		})
	})
}
