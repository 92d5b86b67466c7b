// SPDX-License-Identifier: Apache-2.0

// Package google sets records at Google Cloud DNS.
package google

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/gcloud"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

const (
	ttl = 60 // seconds
	// scope is what a token may be used for.
	scope = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
)

// Config is who may change which zones.
type Config struct {
	Project string
	// ServiceAccount is the JSON of a service account's key; "" is the application
	// default credentials of the process.
	ServiceAccount dns.Secret
	ManagedZone    string // "" is found by the name
	// HTTPClient's transport is used; nil is the default one.
	HTTPClient *http.Client
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) (dns.Provider, error) {
	if c.ServiceAccount != "" {
		if _, err := google.JWTConfigFromJSON([]byte(c.ServiceAccount), scope); err != nil {
			return nil, errors.New("service_account is not the JSON of a service account's key")
		}
	}
	// Taking a record away takes all TXT records of the name away.
	return lego.New(false, func() (challenge.Provider, error) {
		client, err := authorized(c)
		if err != nil {
			return nil, fmt.Errorf("finding credentials for Google Cloud: %w", err)
		}
		return gcloud.NewDNSProviderConfig(&gcloud.Config{
			Project: c.Project, ZoneID: c.ManagedZone, TTL: ttl, HTTPClient: client,
		})
	}), nil
}

// authorized returns a client whose requests have a token. It outlives the call
// that makes it.
func authorized(c Config) (*http.Client, error) {
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, lego.Client(c.HTTPClient))
	if c.ServiceAccount == "" {
		credentials, err := google.FindDefaultCredentials(ctx, scope)
		if err != nil {
			return nil, err
		}
		return oauth2.NewClient(ctx, credentials.TokenSource), nil
	}
	account, err := google.JWTConfigFromJSON([]byte(c.ServiceAccount), scope)
	if err != nil {
		return nil, err
	}
	return account.Client(ctx), nil
}
