// SPDX-License-Identifier: Apache-2.0

// Package ovh sets records at OVHcloud.
package ovh

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/ovh"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

const (
	ttl             = 60 // seconds; the least that the service takes
	defaultEndpoint = "ovh-eu"
)

// endpoints are the service's regions.
var endpoints = []string{defaultEndpoint, "ovh-us", "ovh-ca"}

// Config is who may change which zones: an application with a consumer key, or an
// OAuth2 client.
type Config struct {
	Endpoint                       string // "" is ovh-eu
	ApplicationKey                 string
	ApplicationSecret, ConsumerKey dns.Secret
	ClientID                       string
	ClientSecret                   dns.Secret
	// HTTPClient's transport is used; nil is the default one.
	HTTPClient *http.Client
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) (dns.Provider, error) {
	if c.Endpoint == "" {
		c.Endpoint = defaultEndpoint
	}
	if !slices.Contains(endpoints, c.Endpoint) {
		return nil, fmt.Errorf("endpoint is %.40q; known are %s", c.Endpoint, strings.Join(endpoints, ", "))
	}
	application := []string{c.ApplicationKey, string(c.ApplicationSecret), string(c.ConsumerKey)}
	client := []string{c.ClientID, string(c.ClientSecret)}
	var oauth *ovh.OAuth2Config
	switch {
	case !slices.Contains(application, "") && strings.Join(client, "") == "":
	case !slices.Contains(client, "") && strings.Join(application, "") == "":
		oauth = &ovh.OAuth2Config{ClientID: c.ClientID, ClientSecret: string(c.ClientSecret)}
	default:
		return nil, errors.New("give application_key, application_secret and consumer_key, or client_id and client_secret: all of the one, none of the other")
	}
	return lego.New(true, func() (challenge.Provider, error) {
		return ovh.NewDNSProviderConfig(&ovh.Config{
			APIEndpoint: c.Endpoint, ApplicationKey: c.ApplicationKey, ApplicationSecret: string(c.ApplicationSecret),
			ConsumerKey: string(c.ConsumerKey), OAuth2Config: oauth, TTL: ttl, HTTPClient: lego.Client(c.HTTPClient),
		})
	}), nil
}
