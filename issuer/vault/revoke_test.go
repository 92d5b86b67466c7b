// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/x509"
	"io"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

// TestRevoke revokes a certificate, also one that Vault has kept no copy of.
func TestRevoke(t *testing.T) {
	v := start(t)
	ca := newIssuer(t, v, vault.Config{Auth: vault.Token{Value: v.Token(t, api.TokenCreateRequest{Policies: []string{"sign"}})}})
	for _, noStore := range []bool{false, true} {
		role(t, v, "web", map[string]any{"no_store": noStore})
		leaf, _ := issuertest.Issue(t, ca, issuertest.Named(t, "www.example.com"), 0)
		for range 2 {
			if err := ca.Revoke(t.Context(), leaf, nil, issuer.Superseded); err != nil {
				t.Fatal(err)
			}
		}
		read, err := v.Client().Logical().ReadRawWithContext(t.Context(), "pki/crl")
		if err != nil {
			t.Fatal(err)
		}
		defer read.Body.Close()
		list := crl(t, read)
		found := false
		for _, entry := range list.RevokedCertificateEntries {
			found = found || entry.SerialNumber.Cmp(leaf.SerialNumber) == 0
		}
		if !found {
			t.Errorf("no_store=%v: the certificate is not in the list", noStore)
		}
	}
}

func crl(t *testing.T, read *api.Response) *x509.RevocationList {
	t.Helper()
	der, err := io.ReadAll(read.Body)
	if err != nil {
		t.Fatal(err)
	}
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
