// SPDX-License-Identifier: Apache-2.0

// Package azure sets records at Azure DNS.
package azure

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/go-acme/lego/v5/challenge"
	"github.com/go-acme/lego/v5/providers/dns/azuredns"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/internal/lego"
)

const (
	ttl = 60 // seconds
	// identityTime is how long the machine's identity service may take.
	identityTime = 10 * time.Second
)

// Config is who may change which zones.
type Config struct {
	SubscriptionID, ResourceGroup string
	// Auth is client_secret, which is the default, managed_identity or
	// workload_identity.
	Auth string
	// TenantID, ClientID and ClientSecret are an application, for client_secret.
	TenantID, ClientID string
	ClientSecret       dns.Secret
	Cloud              string // public, which is the default, china or usgovernment
}

// methods are lego's names of what Auth can be.
var methods = map[string]string{"": "env", "client_secret": "env", "managed_identity": "msi", "workload_identity": "wli"}

var clouds = map[string]cloud.Configuration{
	"": cloud.AzurePublic, "public": cloud.AzurePublic, "china": cloud.AzureChina, "usgovernment": cloud.AzureGovernment,
}

// New returns a provider. It asks nobody anything yet.
func New(c Config) (dns.Provider, error) {
	method, ok := methods[c.Auth]
	if !ok {
		return nil, unknown("auth", c.Auth, methods)
	}
	environment, ok := clouds[c.Cloud]
	if !ok {
		return nil, unknown("cloud", c.Cloud, clouds)
	}
	application := []string{c.TenantID, c.ClientID, string(c.ClientSecret)}
	switch complete := !slices.Contains(application, ""); {
	case method == "env" && !complete:
		return nil, errors.New("auth client_secret needs tenant_id, client_id and client_secret")
	case method != "env" && strings.Join(application, "") != "":
		return nil, fmt.Errorf("auth %s takes the identity of the machine: leave out tenant_id, client_id and client_secret", c.Auth)
	}
	// Taking a record away takes all TXT records of the name away.
	return lego.New(false, func() (challenge.Provider, error) {
		return azuredns.NewDNSProviderConfig(&azuredns.Config{
			SubscriptionID: c.SubscriptionID, ResourceGroup: c.ResourceGroup, Environment: environment,
			TenantID: c.TenantID, ClientID: c.ClientID, ClientSecret: string(c.ClientSecret),
			AuthMethod: method, AuthMSITimeout: identityTime, TTL: ttl,
		})
	}), nil
}

func unknown[T any](key, value string, known map[string]T) error {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(known)), func(s string) bool { return s == "" })
	return fmt.Errorf("%s is %.40q; known are %s", key, value, strings.Join(names, ", "))
}
