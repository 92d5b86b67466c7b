// SPDX-License-Identifier: Apache-2.0

// Package gandi sets records at Gandi LiveDNS.
package gandi

import (
	"net/http"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/gandiv5"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

// ttl is the least that the service takes, in seconds.
const ttl = 300

// Config is who may change which zones.
type Config struct {
	AccessToken dns.Secret
	// HTTPClient's transport is used; nil is the default one.
	HTTPClient *http.Client
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) dns.Provider {
	// Taking a record away takes all TXT records of the name away.
	return lego.New(false, func() (challenge.Provider, error) {
		return gandiv5.NewDNSProviderConfig(&gandiv5.Config{
			PersonalAccessToken: string(c.AccessToken), TTL: ttl, HTTPClient: lego.Client(c.HTTPClient),
		})
	})
}
