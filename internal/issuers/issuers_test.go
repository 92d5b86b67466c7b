// SPDX-License-Identifier: Apache-2.0

package issuers

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
)

// settings reads the settings of one issuer as they stand in a shared configuration.
func settings(t *testing.T, text string) config.Issuer {
	t.Helper()
	shared, err := config.ParseShared([]byte("issuers: {ca: {" + text + "}}"))
	if err != nil {
		t.Fatal(err)
	}
	return shared.Issuers["ca"]
}

const arn = "arn:aws:acm-pca:eu-west-1:123456789012:certificate-authority/12345678-1234-1234-1234-123456789012"

func TestOpen(t *testing.T) {
	for _, test := range []struct{ settings, address, shows string }{
		{
			"type: vault, address: https://vault.example, mount: ca, role: web, namespace: team, auth: {method: token, token: s3cret}",
			"https://vault.example", "role web of ca at https://vault.example in namespace team",
		},
		{
			"type: vault, address: https://vault.example, role: web, auth: {method: approle, role_id: id, secret_id: s3cret}",
			"https://vault.example", "role web of pki at https://vault.example",
		},
		{
			"type: vault, address: https://vault.example, role: web, auth: {method: kubernetes, role: web}",
			"https://vault.example", "role web of pki at https://vault.example",
		},
		{
			"type: vault, address: https://vault.example, role: web, auth: {method: jwt, token_file: /jwt}",
			"https://vault.example", "role web of pki at https://vault.example",
		},
		{
			"type: vault, address: https://vault.example, role: web, auth: {method: cert, cert_file: /c, key_file: /k}",
			"https://vault.example", "role web of pki at https://vault.example",
		},
		{
			"type: cfssl, address: https://ca.example:8888, label: blue, profile: web, auth_key: 0123456789abcdef",
			"https://ca.example:8888", "profile web of blue at https://ca.example:8888",
		},
		{"type: awspca, arn: " + arn + ", lifetime: 7d", arn, arn},
	} {
		c := settings(t, test.settings)
		i, err := Open(c)
		if err != nil {
			t.Errorf("%s: %v", test.settings, err)
			continue
		}
		if closer, ok := i.(io.Closer); ok {
			defer closer.Close()
		}
		if got := fmt.Sprintf("%+v", i); got != test.shows {
			t.Errorf("%s: it shows as %q, not %q", test.settings, got, test.shows)
		}
		if got := Address(c); got != test.address {
			t.Errorf("%s: the address is %q, not %q", test.settings, got, test.address)
		}
	}
}

// TestNotOpened has issuers that cannot be made: of settings that are right by
// themselves, and of a type that keeps something.
func TestNotOpened(t *testing.T) {
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull)
	for text, want := range map[string]string{
		"type: vault, role: web":                       "set VAULT_TOKEN",
		"type: vault, role: web, mount: a/../b":        "not a path in Vault",
		"type: awspca, profile: nonesuch, arn: " + arn: "nonesuch",
		"type: local": `an issuer of type "local" needs a manager; those that need none are awspca, cfssl, vault`,
		"type: acme, directory: letsencrypt, terms_agreed: true": `an issuer of type "acme" needs a manager`,
	} {
		c := settings(t, text)
		if i, err := Open(c); i != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the issuer is %v and the error %v; want %q", text, i, err, want)
		}
	}
	if got := Address(settings(t, "type: local")); got != "" {
		t.Errorf("the built-in CA is at %q", got)
	}
}
