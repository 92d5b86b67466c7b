// SPDX-License-Identifier: Apache-2.0

package solvers

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/acmedns"
	"github.com/keyturn/keyturn/solver/dns/azure"
	"github.com/keyturn/keyturn/solver/dns/cloudflare"
	"github.com/keyturn/keyturn/solver/dns/desec"
	"github.com/keyturn/keyturn/solver/dns/digitalocean"
	"github.com/keyturn/keyturn/solver/dns/exec"
	"github.com/keyturn/keyturn/solver/dns/gandi"
	"github.com/keyturn/keyturn/solver/dns/google"
	"github.com/keyturn/keyturn/solver/dns/hetzner"
	"github.com/keyturn/keyturn/solver/dns/ovh"
	"github.com/keyturn/keyturn/solver/dns/powerdns"
	"github.com/keyturn/keyturn/solver/dns/rfc2136"
	"github.com/keyturn/keyturn/solver/dns/route53"
	"github.com/keyturn/keyturn/solver/dns/webhook"
)

// A settings function returns the value of a setting, "" if it is left out.
type settings = func(key string) string

// providers are those of dns-01, by the type of the solver.
var providers = map[string]func(get settings) (dns.Provider, error){
	"cloudflare": func(get settings) (dns.Provider, error) {
		return cloudflare.New(cloudflare.Config{APIToken: dns.Secret(get("api_token")), ZoneToken: dns.Secret(get("zone_token"))}), nil
	},
	"route53": func(get settings) (dns.Provider, error) {
		return route53.New(route53.Config{
			AccessKeyID: get("access_key_id"), SecretAccessKey: dns.Secret(get("secret_access_key")), Region: get("region"),
			HostedZoneID: get("hosted_zone_id"), AssumeRoleARN: get("assume_role_arn"), ExternalID: get("external_id"),
		})
	},
	"google": func(get settings) (dns.Provider, error) {
		return google.New(google.Config{
			Project: get("project"), ServiceAccount: dns.Secret(get("service_account")), ManagedZone: get("managed_zone"),
		})
	},
	"azure": func(get settings) (dns.Provider, error) {
		return azure.New(azure.Config{
			SubscriptionID: get("subscription_id"), ResourceGroup: get("resource_group"), Auth: get("auth"),
			TenantID: get("tenant_id"), ClientID: get("client_id"), ClientSecret: dns.Secret(get("client_secret")), Cloud: get("cloud"),
		})
	},
	"digitalocean": func(get settings) (dns.Provider, error) {
		return digitalocean.New(digitalocean.Config{APIToken: dns.Secret(get("api_token"))}), nil
	},
	"hetzner": func(get settings) (dns.Provider, error) {
		return hetzner.New(hetzner.Config{APIToken: dns.Secret(get("api_token"))}), nil
	},
	"ovh": func(get settings) (dns.Provider, error) {
		return ovh.New(ovh.Config{
			Endpoint: get("endpoint"), ApplicationKey: get("application_key"), ApplicationSecret: dns.Secret(get("application_secret")),
			ConsumerKey: dns.Secret(get("consumer_key")), ClientID: get("client_id"), ClientSecret: dns.Secret(get("client_secret")),
		})
	},
	"gandi": func(get settings) (dns.Provider, error) {
		return gandi.New(gandi.Config{AccessToken: dns.Secret(get("access_token"))}), nil
	},
	"desec": func(get settings) (dns.Provider, error) {
		return desec.New(desec.Config{APIToken: dns.Secret(get("api_token"))}), nil
	},
	"powerdns": func(get settings) (dns.Provider, error) {
		return powerdns.New(powerdns.Config{URL: get("url"), APIKey: dns.Secret(get("api_key")), Server: get("server")})
	},
	"exec": func(get settings) (dns.Provider, error) {
		timeout, err := duration("timeout", get("timeout"))
		if err != nil {
			return nil, err
		}
		return provider(exec.New(exec.Config{
			Program: get("program"), Arguments: strings.Fields(get("arguments")), Timeout: timeout,
		}))
	},
	"webhook": func(get settings) (dns.Provider, error) {
		return provider(webhook.New(webhook.Config{URL: get("url"), Secret: dns.Secret(get("secret"))}))
	},
	"rfc2136": func(get settings) (dns.Provider, error) {
		ttl, err := number("ttl", get("ttl"))
		if err != nil {
			return nil, err
		}
		return provider(rfc2136.New(rfc2136.Config{
			Server: get("server"), KeyName: get("key_name"), KeySecret: dns.Secret(get("key_secret")),
			KeyAlgorithm: get("key_algorithm"), Zone: get("zone"), TTL: ttl,
		}))
	},
	"acme-dns": func(get settings) (dns.Provider, error) {
		return provider(acmedns.New(acmedns.Config{
			URL: get("url"), Username: get("username"), Password: dns.Secret(get("password")),
			Subdomain: get("subdomain"), FullDomain: get("full_domain"),
		}))
	},
}

// provider returns nothing but an error where there is one.
func provider[P dns.Provider](p P, err error) (dns.Provider, error) {
	if err != nil {
		return nil, err
	}
	return p, nil
}

// duration reads a setting that is a time, such as "90s"; "" is 0.
func duration(key, text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%s is %.40q: it must be a time above 0, such as 90s", key, text)
	}
	return d, nil
}

// number reads a setting that is a number above 0; "" is 0.
func number(key, text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s is %.40q: it must be a whole number above 0", key, text)
	}
	return n, nil
}
