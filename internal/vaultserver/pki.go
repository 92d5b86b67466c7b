// SPDX-License-Identifier: Apache-2.0

package vaultserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/durable"
)

// PKI mounts a root CA at "root" and an intermediate CA at "pki", which has no role
// yet, and returns the root.
func (s *Server) PKI(tb testing.TB) *x509.Certificate {
	tb.Helper()
	for _, path := range []string{"root", "pki"} {
		s.Mount(tb, path)
	}
	made := s.Write(tb, "root/root/generate/internal", map[string]any{"common_name": "Vault test root", "ttl": "87600h", "key_type": "ec"})
	root := certificate(tb, made["certificate"])
	csr := s.Write(tb, "pki/intermediate/generate/internal", map[string]any{"common_name": "Vault test intermediate", "key_type": "ec"})
	signed := s.Write(tb, "root/root/sign-intermediate", map[string]any{"csr": csr["csr"], "ttl": "43800h", "max_path_length": 0})
	chain := fmt.Sprintf("%s\n%s", signed["certificate"], made["certificate"])
	s.Write(tb, "pki/intermediate/set-signed", map[string]any{"certificate": chain})
	return root
}

// Write writes to a path of the API, by the root token.
func (s *Server) Write(tb testing.TB, path string, data map[string]any) map[string]any {
	tb.Helper()
	answer, err := s.client.Logical().WriteWithContext(tb.Context(), path, data)
	if err != nil {
		tb.Fatal(fmt.Errorf("writing to %s: %w", path, err))
	}
	if answer == nil {
		return nil
	}
	return answer.Data
}

// Mount mounts a PKI secrets engine without a CA.
func (s *Server) Mount(tb testing.TB, path string) {
	tb.Helper()
	err := s.client.Sys().MountWithContext(tb.Context(), path, &api.MountInput{Type: "pki", Config: api.MountConfigInput{MaxLeaseTTL: "87600h"}})
	if err != nil {
		tb.Fatal(err)
	}
}

// EnableAuth mounts an auth method.
func (s *Server) EnableAuth(tb testing.TB, method string) {
	tb.Helper()
	if err := s.client.Sys().EnableAuthWithOptionsWithContext(tb.Context(), method, &api.EnableAuthOptions{Type: method}); err != nil {
		tb.Fatal(err)
	}
}

// Policy makes a policy that allows what the paths, "update" of which is allowed, say.
func (s *Server) Policy(tb testing.TB, name string, paths ...string) {
	tb.Helper()
	rules := ""
	for _, path := range paths {
		rules += fmt.Sprintf("path %q { capabilities = [\"update\"] }\n", path)
	}
	if err := s.client.Sys().PutPolicyWithContext(tb.Context(), name, rules); err != nil {
		tb.Fatal(err)
	}
}

// Token makes a token.
func (s *Server) Token(tb testing.TB, r api.TokenCreateRequest) string {
	tb.Helper()
	answer, err := s.client.Auth().Token().CreateWithContext(tb.Context(), &r)
	if err != nil {
		tb.Fatal(err)
	}
	return answer.Auth.ClientToken
}

func certificate(tb testing.TB, text any) *x509.Certificate {
	tb.Helper()
	s, _ := text.(string)
	block, _ := pem.Decode([]byte(s))
	if block == nil {
		tb.Fatalf("not a certificate: %v", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// writeCertificate makes the certificate of a server, which is its own root.
func writeCertificate(certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "Vault test server"},
		IPAddresses:           []net.IP{net.ParseIP(host)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().AddDate(0, 0, 1),
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), durable.PrivateFile); err != nil {
		return err
	}
	return durable.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), durable.PrivateFile)
}
