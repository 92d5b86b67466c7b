// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/vaultserver"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

// TestWrapped has a secret ID unwrapped, which works once, and the token kept alive
// that came of it.
func TestWrapped(t *testing.T) {
	v := start(t)
	v.EnableAuth(t, "approle")
	v.Write(t, "auth/approle/role/web", map[string]any{"token_policies": "sign", "token_period": "3s", "secret_id_num_uses": 1})
	id, _ := appRoleOf(t, v)
	client, err := v.Client().CloneWithHeaders()
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(v.RootToken)
	client.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped, err := client.Logical().WriteWithContext(t.Context(), "auth/approle/role/web/secret-id", nil)
	if err != nil {
		t.Fatal(err)
	}
	auth := vault.AppRole{RoleID: id, SecretID: wrapped.WrapInfo.Token, Wrapped: true}
	ca := newIssuer(t, v, vault.Config{Auth: auth})
	csr := issuertest.Named(t, "www.example.com")
	issuertest.Issue(t, ca, csr, 0)
	awaitRenewal(t, v, "auth/approle/login")
	issuertest.Issue(t, ca, csr, 0)

	_, err = newIssuer(t, v, vault.Config{Auth: auth}).Issue(t.Context(), csr, 0)
	if err == nil || !strings.Contains(err.Error(), "somebody has unwrapped it before") {
		t.Errorf("unwrapped twice: %v", err)
	}
}

// TestTokenIsRenewed has a token that would end in three seconds last while nobody
// asks.
func TestTokenIsRenewed(t *testing.T) {
	v := start(t)
	token := v.Token(t, api.TokenCreateRequest{Policies: []string{"sign"}, Period: "3s"})
	ca := newIssuer(t, v, vault.Config{Auth: vault.Token{Value: token}})
	csr := issuertest.Named(t, "www.example.com")
	issuertest.Issue(t, ca, csr, 0)
	awaitRenewal(t, v, "auth/token/create")
	issuertest.Issue(t, ca, csr, 0)
}

// awaitRenewal returns when the token that was made at the path was renewed twice.
func awaitRenewal(t *testing.T, v *vaultserver.Server, path string) {
	t.Helper()
	renewed := make(map[string]bool)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for len(renewed) < 2 {
		<-tick.C
		list, err := v.Client().Logical().ListWithContext(t.Context(), "auth/token/accessors")
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, accessor := range list.Data["keys"].([]any) {
			token, err := v.Client().Auth().Token().LookupAccessorWithContext(t.Context(), accessor.(string))
			if err != nil || token.Data["path"] != path || token.Data["period"] == nil {
				continue // it may have ended meanwhile
			}
			found = true
			if at, ok := token.Data["last_renewal_time"].(json.Number); ok {
				renewed[at.String()] = true
			}
		}
		if !found {
			t.Fatal("the token has ended")
		}
	}
}
