// SPDX-License-Identifier: Apache-2.0

// Package powerdns sets records at a PowerDNS authoritative server, through its
// HTTP API.
package powerdns

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/pdns"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

const (
	ttl           = 60 // seconds
	apiVersion    = 1  // since PowerDNS 4.0
	defaultServer = "localhost"
)

// Config is which server, and who may change it.
type Config struct {
	URL    string // without /api/v1
	APIKey dns.Secret
	Server string // "" is localhost, which is what a server calls itself
	// HTTPClient's transport is used; nil is the default one.
	HTTPClient *http.Client
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) (dns.Provider, error) {
	host, err := url.Parse(c.URL)
	if err != nil || host.Host == "" || host.Scheme != "https" && host.Scheme != "http" || host.User != nil {
		return nil, errors.New("url must be an http or https URL without a password, as in https://ns.example.com:8081")
	}
	if c.Server == "" {
		c.Server = defaultServer
	}
	return lego.New(true, func() (challenge.Provider, error) {
		return pdns.NewDNSProviderConfig(&pdns.Config{
			Host: host, APIKey: string(c.APIKey), ServerName: c.Server, APIVersion: apiVersion,
			TTL: ttl, HTTPClient: lego.Client(c.HTTPClient),
		})
	}), nil
}
