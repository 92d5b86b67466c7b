// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
)

// TestSecretsNeverPrint: no verb, no log and no JSON shows what may be secret,
// wherever it stands; what is not, prints.
func TestSecretsNeverPrint(t *testing.T) {
	const secret = "hunter2"
	shared := &config.Shared{
		Issuers: map[string]config.Issuer{"ca": {Type: "acme", ACME: &config.ACME{
			Directory: "https://ca.example.com", AccountKey: secret, EAB: &config.EAB{KeyID: "kid", HMACKey: secret},
		}}, "vault": {Type: "vault", Vault: &config.Vault{
			Role: "web", Auth: &config.VaultAuth{Method: "approle", SecretID: secret, Token: secret},
		}}, "cfssl": {Type: "cfssl", CFSSL: &config.CFSSL{Address: "https://ca.example.com", AuthKey: secret}}},
		Solvers: map[string]config.Solver{},
	}
	for name, kind := range config.SolverTypes {
		s := config.Solver{Type: name, Settings: map[string]string{"nonesuch": secret}}
		for _, setting := range kind.Settings {
			s.Settings[setting.Name] = "https://dns.example.com"
			if setting.Secret {
				s.Settings[setting.Name] = secret
			}
		}
		shared.Solvers[name] = s
	}
	local := &config.Local{Data: "/data", Bus: "nats://me:" + secret + "@bus.example.com", CheckIn: config.CheckIn{URL: "https://example.com/" + secret, TTL: "1h"}}
	values := []any{
		shared, *shared, shared.Issuers, shared.Issuers["ca"], shared.Issuers["ca"].ACME, *shared.Issuers["ca"].ACME,
		shared.Issuers["ca"].ACME.EAB, *shared.Issuers["ca"].ACME.EAB, shared.Solvers, shared.Solvers["exec"],
		shared.Issuers["vault"].Vault.Auth, *shared.Issuers["vault"].Vault.Auth,
		shared.Issuers["cfssl"].CFSSL, *shared.Issuers["cfssl"].CFSSL,
		local, *local, local.CheckIn, &local.CheckIn,
		struct{ Local config.Local }{*local},
		[]config.CheckIn{local.CheckIn},
	}
	for _, v := range values {
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
		for _, form := range []string{"%s", "%x", "%X", "% x", "%v"} {
			shown := any(secret)
			if form == "%v" {
				shown = []byte(secret)
			}
			if s := fmt.Sprintf(form, shown); strings.Contains(out.String(), s) {
				t.Errorf("%T shows the secret as %s:\n%s", v, s, out.String())
			}
		}
		if n := strings.Count(out.String(), config.Hidden); n < 8 {
			t.Errorf("%T says %d times that something is not shown:\n%s", v, n, out.String())
		}
	}
	for want, v := range map[string]any{
		"{acme <nil> {https://ca.example.com false []     {kid (not shown)} (not shown) false <nil>} <nil> <nil> <nil>}":               shared.Issuers["ca"],
		"{exec map[arguments:(not shown) nonesuch:(not shown) program:https://dns.example.com timeout:https://dns.example.com] 0s []}": shared.Solvers["exec"],
		"{/data  (not shown)      {(not shown) 1h} { }}":                                                                               *local,
	} {
		if got := fmt.Sprint(v); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if s := shared.Solvers["exec"].Settings["arguments"]; s != secret {
		t.Errorf("printing changed the setting to %s", s)
	}
}
