// SPDX-License-Identifier: Apache-2.0

package solvers

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
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

// configs are what each service is told, by the type of the solver.
var configs = map[string]any{
	"acme-dns": acmedns.Config{}, "azure": azure.Config{}, "cloudflare": cloudflare.Config{}, "desec": desec.Config{},
	"digitalocean": digitalocean.Config{}, "exec": exec.Config{}, "gandi": gandi.Config{}, "google": google.Config{},
	"hetzner": hetzner.Config{}, "ovh": ovh.Config{}, "powerdns": powerdns.Config{}, "rfc2136": rfc2136.Config{},
	"route53": route53.Config{}, "webhook": webhook.Config{},
}

var (
	secretTypes = []reflect.Type{reflect.TypeFor[dns.Secret](), reflect.TypeFor[dns.Secrets]()}
	// plumbing is what a Config has besides settings.
	plumbing = []reflect.Type{reflect.TypeFor[*http.Client](), reflect.TypeFor[http.RoundTripper]()}
)

// TestSecretsOfServices: what the configuration calls a secret is one in each
// service's own Config, too, and nothing else is; a field is a setting that the
// configuration knows. No verb, no log and no JSON shows one; what is none, prints.
func TestSecretsOfServices(t *testing.T) {
	if got, want := slices.Sorted(maps.Keys(configs)), slices.Sorted(maps.Keys(providers)); !slices.Equal(got, want) {
		t.Fatalf("looked at are %v, there are %v", got, want)
	}
	const secret, harmless = "hunter2", "harmless"
	for name, c := range configs {
		v := reflect.New(reflect.TypeOf(c)).Elem()
		known := make(map[string]bool) // by field in lower case, whether it is secret
		for _, s := range config.SolverTypes[name].Settings {
			known[strings.ReplaceAll(s.Name, "_", "")] = s.Secret
		}
		said := false // that there is something to print
		for i := range v.NumField() {
			field := v.Type().Field(i)
			wanted, ok := known[strings.ToLower(field.Name)]
			delete(known, strings.ToLower(field.Name))
			if !ok && !slices.Contains(plumbing, field.Type) {
				t.Errorf("%T: %s is no setting of the configuration, which says whether it is secret", c, field.Name)
			}
			if got := slices.Contains(secretTypes, field.Type); got != wanted {
				t.Errorf("%T: %s is a %v; that it is secret says the configuration: %t", c, field.Name, field.Type, wanted)
			}
			switch {
			case wanted && field.Type.Kind() == reflect.Slice:
				v.Field(i).Set(reflect.ValueOf(dns.Secrets{secret}))
			case wanted:
				v.Field(i).SetString(secret)
			case field.Type.Kind() == reflect.String:
				v.Field(i).SetString(harmless)
				said = true
			}
		}
		for field := range known {
			t.Errorf("%T has no field for the setting %s", c, field)
		}
		pointer := reflect.New(v.Type())
		pointer.Elem().Set(v)
		for _, value := range []any{v.Interface(), pointer.Interface(), []any{v.Interface()}, struct{ C any }{v.Interface()}} {
			out := printed(t, value)
			if s := shows(out, secret); s != "" {
				t.Errorf("%T shows %s:\n%s", c, s, out)
			}
			if strings.Count(out, "(not shown)") < 8 {
				t.Errorf("%T does not say that something is not shown:\n%s", c, out)
			}
			if said != strings.Contains(out, harmless) {
				t.Errorf("%T does not print what is no secret:\n%s", c, out)
			}
		}
		if out := printed(t, reflect.Zero(v.Type()).Interface()); strings.Contains(out, "(not shown)") {
			t.Errorf("%T hides what is not there:\n%s", c, out)
		}
	}
}

// TestSecretsOfProviders: nor does what was made of them show one.
func TestSecretsOfProviders(t *testing.T) {
	for name, settings := range complete {
		make := providers[name]
		if make == nil {
			continue
		}
		p, err := make(func(key string) string { return settings[key] })
		if err != nil {
			t.Fatal(err)
		}
		out := printed(t, p)
		for _, s := range config.SolverTypes[name].Settings {
			if !s.Secret {
				continue
			}
			for _, word := range strings.Fields(settings[s.Name]) {
				if form := shows(out, word); form != "" {
					t.Errorf("%T shows %s, %s:\n%s", p, s.Name, form, out)
				}
			}
		}
	}
}

// printed is a value in all ways in which one is shown.
func printed(t *testing.T, v any) string {
	t.Helper()
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%90s"} {
		fmt.Fprintf(&out, verb+"\n", v)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "v", v, slog.Group("g", "v", v))
	}
	if err := json.NewEncoder(&out).Encode(v); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// shows returns in which form a text shows a secret; "" if in none.
func shows(text, secret string) string {
	for _, form := range []string{
		secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), fmt.Sprintf("% x", secret), fmt.Sprint([]byte(secret)),
	} {
		if strings.Contains(text, form) {
			return form
		}
	}
	return ""
}
