// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/x509"
	"net"
	"testing"

	"github.com/keyturn/keyturn/internal/vaultserver"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

// TestOpenSSLVerifies has the other widespread implementation of RFC 5280 look at a
// chain.
func TestOpenSSLVerifies(t *testing.T) {
	v := vaultserver.Start(t)
	root := v.PKI(t)
	role(t, v, "web", nil)
	ca := newIssuer(t, v, vault.Config{Auth: signer(t, v, "web")})
	chain, err := ca.Issue(t.Context(), issuertest.Request(t, x509.CertificateRequest{
		DNSNames: []string{"www.example.com", "*.example.org"}, IPAddresses: []net.IP{net.ParseIP("10.0.0.1")},
	}), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(chain) != 2 {
		t.Errorf("the chain has %d certificates, want the leaf and the intermediate", len(chain))
	}
	issuertest.VerifyWithOpenSSL(t, root, chain, "www.example.com", "*.example.org", "10.0.0.1")
}
