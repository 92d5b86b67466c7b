// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/config"
)

// TestVault reads each way to log in, and writes it as it was.
func TestVault(t *testing.T) {
	for in, want := range map[string]config.Vault{
		"role: web": {Role: "web"},
		`address: https://vault.example.com:8200
    namespace: team
    mount: pki/int
    role: web
    server_name: vault
    auth: {method: approle, mount: machines, role_id: id, secret_id_file: /run/secret-id}`: {
			Address: "https://vault.example.com:8200", Namespace: "team", Mount: "pki/int", Role: "web", ServerName: "vault",
			Auth: &config.VaultAuth{Method: "approle", Mount: "machines", RoleID: "id", SecretIDFile: "/run/secret-id"},
		},
		"{address: 'http://127.0.0.1:8200', role: web, auth: {method: approle, role_id: id, secret_id: s}}": {
			Address: "http://127.0.0.1:8200", Role: "web", Auth: &config.VaultAuth{Method: "approle", RoleID: "id", SecretID: "s"},
		},
		"{role: web, auth: {method: token, token_file: /run/token}}":            {Role: "web", Auth: &config.VaultAuth{Method: "token", TokenFile: "/run/token"}},
		"{role: web, auth: {method: kubernetes, role: keyturn}}":                {Role: "web", Auth: &config.VaultAuth{Method: "kubernetes", Role: "keyturn"}},
		"{role: web, auth: {method: jwt, role: keyturn, token_file: /run/jwt}}": {Role: "web", Auth: &config.VaultAuth{Method: "jwt", Role: "keyturn", TokenFile: "/run/jwt"}},
		"{role: web, auth: {method: cert, cert_file: /c, key_file: /k}}":        {Role: "web", Auth: &config.VaultAuth{Method: "cert", CertFile: "/c", KeyFile: "/k"}},
	} {
		if strings.HasPrefix(in, "{") {
			in = "issuers:\n  v: " + strings.Replace(in, "{", "{type: vault, ", 1)
		} else {
			in = "issuers:\n  v:\n    type: vault\n    " + in
		}
		got, err := config.ParseShared([]byte(in))
		if err != nil {
			t.Errorf("%v in\n%s", err, in)
			continue
		}
		if diff := cmp.Diff(&want, got.Issuers["v"].Vault); diff != "" {
			t.Errorf("%s in\n%s", diff, in)
		}
		text, err := got.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.ParseShared(text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if diff := cmp.Diff(got, again, renewBefores); diff != "" {
			t.Errorf("%s in\n%s", diff, text)
		}
	}
}

func TestVaultRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"address: 'https://v'": "line 1: issuers.v.role: it is missing",
		"role: pki/web":        "line 1: issuers.v.role: it has a slash in it",
		"role: web, address: 'http://vault.example.com'": "line 1: issuers.v.address: \"http://vault.example.com\" is not https",
		"role: web, address: vault":                      "issuers.v.address: it is not the URL of a Vault",
		"role: web, address: 'https://me:hunter2@v'":     "issuers.v.address: it is not the URL of a Vault",
		"role: web, roots: hello":                        "issuers.v.roots: it is not PEM",
		"role: web, token: hunter2":                      "issuers.v.token: unknown key",
		"role: web, auth: {method: userpass}":            "issuers.v.auth.method: \"userpass\" is not a way to log in; known are approle, cert, jwt, kubernetes, token",
		"role: web, auth: {}":                            "issuers.v.auth.method: \"\" is not a way",
		"role: web, auth: {method: approle}":             "issuers.v.auth.method: approle needs role_id",
		"role: web, auth: {method: approle, role_id: a, secret_id: hunter2, secret_id_file: b}": "leave one of them out",
		"role: web, auth: {method: token, token: hunter2, token_file: b}":                       "leave one of them out",
		"role: web, auth: {method: kubernetes}":                                                 "kubernetes needs role",
		"role: web, auth: {method: jwt}":                                                        "jwt needs token_file",
		"role: web, auth: {method: cert, cert_file: a}":                                         "belong together",
		"role: web, auth: {method: token, role_id: hunter2}":                                    "issuers.v.auth.role_id: unknown key; known here are method, token, token_file",
	} {
		_, err := config.ParseShared(fmt.Appendf(nil, "issuers: {v: {type: vault, %s}}", in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", in, err)
		}
	}
}
