// SPDX-License-Identifier: Apache-2.0

package localca_test

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
)

// openssl returns the program's path.
func openssl(t *testing.T) string {
	t.Helper()
	program, err := exec.LookPath("openssl")
	if err != nil {
		const hint = "openssl is not installed; run: apt-get install openssl"
		if os.Getenv("CI") == "true" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	return program
}

// TestOpenSSLVerifies has the other widespread implementation of RFC 5280 look
// at a chain, in its strict mode.
func TestOpenSSLVerifies(t *testing.T) {
	program := openssl(t)
	for _, kt := range []issuer.KeyType{issuer.ECDSAP256, issuer.ECDSAP384, issuer.RSA2048, issuer.Ed25519} {
		t.Run(kt.String(), func(t *testing.T) {
			ca := newCA(t, localca.Config{KeyType: kt})
			key, err := kt.Generate()
			if err != nil {
				t.Fatal(err)
			}
			csr, err := issuer.NewRequest(key, []string{"www.example.com", "*.example.org", "10.0.0.1", "2001:db8::1"})
			if err != nil {
				t.Fatal(err)
			}
			chain, err := ca.Issue(t.Context(), csr, 0)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			file := func(name string, text []byte) string {
				path := filepath.Join(dir, name)
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
				return path
			}
			root := file("root.pem", ca.RootPEM())
			inter := file("intermediate.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[1]}))
			leaf := file("leaf.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain[0]}))
			for _, as := range [][]string{
				{"-purpose", "sslserver", "-verify_hostname", "www.example.com"},
				{"-purpose", "sslserver", "-verify_hostname", "any.example.org"},
				{"-purpose", "sslserver", "-verify_ip", "10.0.0.1"},
				{"-purpose", "sslserver", "-verify_ip", "2001:db8::1"},
				{"-purpose", "sslclient"},
			} {
				args := append([]string{"verify", "-x509_strict", "-check_ss_sig", "-no-CApath", "-no-CAstore", "-CAfile", root, "-untrusted", inter}, as...)
				if out, err := exec.CommandContext(t.Context(), program, append(args, leaf)...).CombinedOutput(); err != nil {
					t.Errorf("openssl %v: %v\n%s", as, err, out)
				}
			}
		})
	}
}
