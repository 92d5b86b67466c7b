// SPDX-License-Identifier: Apache-2.0

package solvers

import (
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/solver"
)

// account is a service account's key with a token URL that nothing answers at.
const account = `{"type":"service_account","client_email":"a@example.test","private_key":"x","token_uri":"https://127.0.0.1:1/"}`

// complete are settings of each type that it takes.
var complete = map[string]map[string]string{
	"http-01":      {},
	"webroot":      {"path": "/var/www"},
	"tls-alpn-01":  {},
	"cloudflare":   {"api_token": "secret"},
	"route53":      {},
	"google":       {"project": "p", "service_account": account},
	"azure":        {"subscription_id": "s", "resource_group": "g", "tenant_id": "t", "client_id": "c", "client_secret": "secret"},
	"digitalocean": {"api_token": "secret"},
	"hetzner":      {"api_token": "secret"},
	"ovh":          {"client_id": "c", "client_secret": "secret"},
	"gandi":        {"access_token": "secret"},
	"desec":        {"api_token": "secret"},
	"powerdns":     {"url": "http://127.0.0.1:1", "api_key": "secret"},
	"exec":         {"program": "/bin/true", "arguments": "-a  -b", "timeout": "90s"},
	"webhook":      {"url": "https://127.0.0.1:1/x", "secret": "0123456789abcdef"},
	"rfc2136":      {"server": "127.0.0.1:1", "key_name": "k", "key_secret": base64.StdEncoding.EncodeToString(make([]byte, 32)), "ttl": "30"},
	"acme-dns":     {"url": "https://127.0.0.1:1", "username": "u", "password": "secret", "subdomain": "s", "full_domain": "s.example.test"},
}

func TestEveryType(t *testing.T) {
	for name, kind := range config.SolverTypes {
		settings, ok := complete[name]
		if !ok {
			t.Errorf("%s: no settings to try", name)
			continue
		}
		s, types, err := New("mine", config.Solver{Type: name, Settings: settings}, nil)
		if err != nil || s == nil || !slices.Equal(types, kind.Challenges) {
			t.Errorf("%s: %v, %v, %v", name, s, types, err)
		}
		for _, c := range types {
			if !slices.Contains(solver.Types(), c) {
				t.Errorf("%s answers %s, which is no type of challenge", name, c)
			}
		}
		for _, setting := range kind.Settings {
			if !setting.Required {
				continue
			}
			less := maps.Clone(settings)
			delete(less, setting.Name)
			if _, _, err := New("mine", config.Solver{Type: name, Settings: less}, nil); err == nil || !strings.Contains(err.Error(), "mine of type "+name+": the setting "+setting.Name) {
				t.Errorf("%s without %s: %v", name, setting.Name, err)
			}
		}
		more := maps.Clone(settings)
		more["other"] = "x"
		if _, _, err := New("mine", config.Solver{Type: name, Settings: more}, nil); err == nil || !strings.Contains(err.Error(), `"other" is no setting`) {
			t.Errorf("%s with another setting: %v", name, err)
		}
	}
}

// TestSettings holds that config and this package know the same settings.
func TestSettings(t *testing.T) {
	for name, open := range providers {
		var read []string
		_, err := open(func(key string) string { read = append(read, key); return complete[name][key] })
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		slices.Sort(read)
		var known []string
		for _, s := range config.SolverTypes[name].Settings {
			known = append(known, s.Name)
		}
		if slices.Sort(known); !slices.Equal(read, known) {
			t.Errorf("%s reads %v, the configuration has %v", name, read, known)
		}
	}
	for name, kind := range config.SolverTypes {
		if _, ok := providers[name]; ok != slices.Contains(kind.Challenges, solver.DNS01) {
			t.Errorf("%s answers %v, and is among the providers: %v", name, kind.Challenges, ok)
		}
	}
}

func TestWrongSettings(t *testing.T) {
	for _, c := range []struct {
		kind, key, value, want string
	}{
		{"other", "", "", "not a type of solver"},
		{"route53", "access_key_id", "id", "secret_access_key"},
		{"route53", "external_id", "id", "assume_role_arn"},
		{"google", "service_account", "{secret", "service_account is not"},
		{"azure", "auth", "password", "client_secret, managed_identity, workload_identity"},
		{"azure", "auth", "managed_identity", "leave out"},
		{"azure", "cloud", "mars", "china, public, usgovernment"},
		{"azure", "tenant_id", "", "needs tenant_id"},
		{"ovh", "endpoint", "ovh-mars", "ovh-eu, ovh-us, ovh-ca"},
		{"ovh", "consumer_key", "secret", "all of the one"},
		{"powerdns", "url", "ftp://x", "http or https"},
		{"powerdns", "url", "http://u:secret@x", "without a password"},
		{"exec", "program", "x", "absolute"},
		{"exec", "timeout", "90", "such as 90s"},
		{"webhook", "url", "http://192.0.2.1/", "https"},
		{"webhook", "secret", "secret", "16 bytes"},
		{"rfc2136", "ttl", "-1", "above 0"},
		{"acme-dns", "full_domain", "x.example.test", "subdomain"},
	} {
		settings := maps.Clone(complete[c.kind])
		if settings == nil {
			settings = make(map[string]string)
		}
		if c.key != "" {
			settings[c.key] = c.value
		}
		_, _, err := New("mine", config.Solver{Type: c.kind, Settings: settings}, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "{secret") || strings.Contains(err.Error(), ":secret@") {
			t.Errorf("%s with %s %q: %v", c.kind, c.key, c.value, err)
		}
	}
}
