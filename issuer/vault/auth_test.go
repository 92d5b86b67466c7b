// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/vaultserver"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

// start returns a server with a role "web" and a policy "sign" for it.
func start(t *testing.T) *vaultserver.Server {
	t.Helper()
	v := vaultserver.Start(t)
	v.PKI(t)
	role(t, v, "web", nil)
	v.Policy(t, "sign", "pki/sign/web", "pki/revoke")
	return v
}

// TestAuth logs in by each method, again when all its tokens were revoked, and is
// refused with what is wrong.
func TestAuth(t *testing.T) {
	v := start(t)
	csr := issuertest.Named(t, "www.example.com")
	for _, test := range []struct {
		title string
		make  func(t *testing.T, v *vaultserver.Server) (good, bad vault.Auth)
	}{
		{"approle", appRole},
		{"kubernetes", kubernetes},
		{"jwt", jwt},
		{"cert", certificate},
	} {
		t.Run(test.title, func(t *testing.T) {
			good, bad := test.make(t, v)
			ca := newIssuer(t, v, vault.Config{Auth: good})
			issuertest.Issue(t, ca, csr, 0)
			v.Write(t, "sys/leases/revoke-prefix/auth/"+test.title, nil)
			issuertest.Issue(t, ca, csr, 0)

			_, err := newIssuer(t, v, vault.Config{Auth: bad}).Issue(t.Context(), csr, 0)
			t.Log(err)
			var p *issuer.Problem
			if !errors.As(err, &p) || p.Type != vault.LoginRefused || errors.Is(err, issuer.ErrRefused) {
				t.Errorf("%v", err)
			}
			if !strings.Contains(err.Error(), "vault read auth/"+test.title) && !strings.Contains(err.Error(), "vault write -f auth/"+test.title) {
				t.Errorf("it does not say where to look: %v", err)
			}
		})
	}
}

func appRole(t *testing.T, v *vaultserver.Server) (good, bad vault.Auth) {
	v.EnableAuth(t, "approle")
	v.Write(t, "auth/approle/role/web", map[string]any{"token_policies": "sign", "token_ttl": "1h"})
	id, secret := appRoleOf(t, v)
	return vault.AppRole{RoleID: id, SecretIDFile: write(t, "secret-id", secret)}, vault.AppRole{RoleID: id, SecretID: "wrong"}
}

func appRoleOf(t *testing.T, v *vaultserver.Server) (roleID, secretID string) {
	t.Helper()
	read, err := v.Client().Logical().ReadWithContext(t.Context(), "auth/approle/role/web/role-id")
	if err != nil {
		t.Fatal(err)
	}
	return read.Data["role_id"].(string), v.Write(t, "auth/approle/role/web/secret-id", nil)["secret_id"].(string)
}

// kubernetes has Vault ask a front of Kubernetes' TokenReview who a token is of.
func kubernetes(t *testing.T, v *vaultserver.Server) (good, bad vault.Auth) {
	binary, err := os.ReadFile(v.Plugin())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(binary)
	v.Write(t, "sys/plugins/catalog/auth/kubernetes", map[string]any{"sha256": hex.EncodeToString(sum[:]), "command": filepath.Base(v.Plugin())})
	v.EnableAuth(t, "kubernetes")

	account := signedToken(t, issuertest.Key(t, issuer.ECDSAP256).(*ecdsa.PrivateKey), map[string]any{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:shop:web",
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "web", "uid": "1"}},
	})
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review map[string]any
		if r.URL.Path != "/apis/authentication.k8s.io/v1/tokenreviews" || json.NewDecoder(r.Body).Decode(&review) != nil {
			http.NotFound(w, r)
			return
		}
		spec, _ := review["spec"].(map[string]any)
		review["status"] = map[string]any{
			"authenticated": spec["token"] == account,
			"user":          map[string]any{"username": "system:serviceaccount:shop:web", "uid": "1", "groups": []string{"system:serviceaccounts"}},
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(review) // a failure shows at Vault
	}))
	t.Cleanup(front.Close)
	v.Write(t, "auth/kubernetes/config", map[string]any{
		"kubernetes_host": front.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": account,
		"kubernetes_ca_cert": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw})),
	})
	v.Write(t, "auth/kubernetes/role/web", map[string]any{
		"bound_service_account_names": "web", "bound_service_account_namespaces": "shop", "token_policies": "sign", "audience": "",
	})
	v.Write(t, "auth/kubernetes/role/other", map[string]any{
		"bound_service_account_names": "other", "bound_service_account_namespaces": "shop", "token_policies": "sign", "audience": "",
	})
	file := write(t, "token", account)
	return vault.Kubernetes{Role: "web", TokenFile: file}, vault.Kubernetes{Role: "other", TokenFile: file}
}

func jwt(t *testing.T, v *vaultserver.Server) (good, bad vault.Auth) {
	v.EnableAuth(t, "jwt")
	key := issuertest.Key(t, issuer.ECDSAP256).(*ecdsa.PrivateKey)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	v.Write(t, "auth/jwt/config", map[string]any{"jwt_validation_pubkeys": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))})
	v.Write(t, "auth/jwt/role/web", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "bound_subject": "web", "token_policies": "sign",
	})
	token := func(sub string) string {
		return signedToken(t, key, map[string]any{"sub": sub, "aud": "vault"})
	}
	return vault.JWT{Role: "web", File: write(t, "jwt", token("web"))}, vault.JWT{Role: "web", Value: token("other")}
}

// signedToken is a JWT by ES256 (RFC 7518 section 3.4).
func signedToken(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	now := time.Now()
	claims["iat"], claims["nbf"], claims["exp"] = now.Unix(), now.Unix(), now.Add(time.Hour).Unix()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func certificate(t *testing.T, v *vaultserver.Server) (good, bad vault.Auth) {
	v.EnableAuth(t, "cert")
	known, other := clientCertificate(t), clientCertificate(t)
	text, err := os.ReadFile(known.CertFile)
	if err != nil {
		t.Fatal(err)
	}
	v.Write(t, "auth/cert/certs/web", map[string]any{"certificate": string(text), "token_policies": "sign"})
	return known, other
}

// clientCertificate makes a self-signed certificate.
func clientCertificate(t *testing.T) vault.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyturn"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return vault.Certificate{
		Role:     "web",
		CertFile: write(t, "client.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		KeyFile:  write(t, "client.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))),
	}
}
