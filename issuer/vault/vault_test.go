// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/vaultserver"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

func TestMain(m *testing.M) {
	for _, v := range os.Environ() { // of whoever works with a Vault
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "VAULT_") {
			_ = os.Unsetenv(name) // it was there
		}
	}
	goleak.VerifyTestMain(m)
}

// newIssuer returns an issuer at the server, which ends with the test.
func newIssuer(t testing.TB, v *vaultserver.Server, c vault.Config) *vault.Issuer {
	t.Helper()
	c.Address, c.Roots = v.Address, pool(t, v)
	if c.Role == "" {
		c.Role = "web"
	}
	ca, err := vault.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return ca
}

// pool has what servers are known by.
func pool(t testing.TB, servers ...*vaultserver.Server) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	for _, v := range servers {
		text, err := os.ReadFile(v.Roots)
		if err != nil {
			t.Fatal(err)
		}
		roots.AppendCertsFromPEM(text)
	}
	return roots
}

// role makes the role "web", which signs all that the suite asks for, but for what
// changes says.
func role(t testing.TB, v *vaultserver.Server, name string, changes map[string]any) {
	t.Helper()
	rules := map[string]any{
		"allow_any_name": true, "allow_wildcard_certificates": true, "enforce_hostnames": true,
		"allowed_uri_sans": "*", "allowed_other_sans": "*", "key_type": "any", "require_cn": false,
		"ttl": "24h", "max_ttl": "72h",
	}
	for k, v := range changes {
		rules[k] = v
	}
	v.Write(t, "pki/roles/"+name, rules)
}

// signer returns a token that may have a role sign.
func signer(t testing.TB, v *vaultserver.Server, role string) vault.Token {
	t.Helper()
	v.Policy(t, "sign-"+role, "pki/sign/"+role)
	return vault.Token{Value: v.Token(t, api.TokenCreateRequest{Policies: []string{"sign-" + role}})}
}

// TestIssuer runs the suite with roles that take names from the request, and with
// such that take them from the parameters.
func TestIssuer(t *testing.T) {
	v := vaultserver.Start(t)
	root := v.PKI(t)
	for _, test := range []struct {
		role     string
		fromCSR  bool
		keyTypes []issuer.KeyType
	}{
		{"request", true, nil},
		{"parameters", false, []issuer.KeyType{issuer.ECDSAP256}},
	} {
		t.Run("names of the "+test.role, func(t *testing.T) {
			role(t, v, test.role, map[string]any{"use_csr_sans": test.fromCSR, "use_csr_common_name": test.fromCSR})
			ca := newIssuer(t, v, vault.Config{Role: test.role, Auth: signer(t, v, test.role)})
			issuertest.Run(t, func(*testing.T) issuertest.Config {
				return issuertest.Config{
					Issuer: ca, Root: root, KeyTypes: test.keyTypes,
					MaxLifetime: 72 * time.Hour, MaxBackdate: time.Minute, SerialBits: 120,
				}
			})
		})
	}
}

// userPrincipalName is Microsoft's, the most common otherName.
var userPrincipalName = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2, 3}

// TestNames asks for the kinds of names that the suite does not have.
func TestNames(t *testing.T) {
	v := vaultserver.Start(t)
	v.PKI(t)
	other, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte("www.example.com")},
		{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: otherName(t, userPrincipalName, "web@example.com")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, fromCSR := range []bool{true, false} {
		role(t, v, "web", map[string]any{"use_csr_sans": fromCSR, "use_csr_common_name": fromCSR})
		ca := newIssuer(t, v, vault.Config{Auth: signer(t, v, "web")})
		for title, template := range map[string]x509.CertificateRequest{
			"URI alone":       {URIs: spiffe(t)},
			"URI":             {DNSNames: []string{"www.example.com"}, URIs: spiffe(t)},
			"mail":            {EmailAddresses: []string{"web@example.com"}, DNSNames: []string{"www.example.com"}},
			"common name":     {Subject: pkix.Name{CommonName: "b.example.com"}, DNSNames: []string{"a.example.com", "b.example.com"}},
			"other name":      {ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: other}}},
			"upper-case name": {DNSNames: []string{"WWW.example.com"}},
		} {
			t.Run(title, func(t *testing.T) {
				issuertest.Issue(t, ca, issuertest.Request(t, template), 0)
			})
		}
	}
}

// otherName is the content of an OtherName.
func otherName(t *testing.T, id asn1.ObjectIdentifier, text string) []byte {
	t.Helper()
	value, err := asn1.MarshalWithParams(text, "utf8")
	if err != nil {
		t.Fatal(err)
	}
	oid, err := asn1.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: value})
	if err != nil {
		t.Fatal(err)
	}
	return append(oid, wrapped...)
}

var loopback = []net.IP{net.IPv4(127, 0, 0, 1).To4()}

func spiffe(t testing.TB) []*url.URL {
	t.Helper()
	u, err := url.Parse("spiffe://example.com/web")
	if err != nil {
		t.Fatal(err)
	}
	return []*url.URL{u}
}

// write makes a file of the test.
func write(t testing.TB, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	rewrite(t, file, text)
	return file
}

func rewrite(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// noForwarding returns the address of a front that asks a standby not to forward
// (X-Vault-No-Request-Forwarding), so that it redirects, as one does whose cluster
// has no way between its servers.
func noForwarding(t testing.TB, v *vaultserver.Server) string {
	t.Helper()
	to, err := url.Parse(v.Address)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(t, v)}}
	t.Cleanup(transport.CloseIdleConnections)
	front := httptest.NewServer(&httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Set("X-Vault-No-Request-Forwarding", "true")
		},
	})
	t.Cleanup(front.Close)
	return front.URL
}
