// SPDX-License-Identifier: Apache-2.0

package issuertest

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// VerifyWithOpenSSL has the other widespread implementation of RFC 5280 look at a chain
// as a client does, by its strictest reading: what is served, by the root alone, as a
// server's for each of the names, and as a client's. For a wildcard, it looks for
// a name that it stands for. Where openssl is not installed, the test is skipped, and
// fails in CI.
func VerifyWithOpenSSL(t *testing.T, root *x509.Certificate, chain [][]byte, names ...string) {
	t.Helper()
	program, err := exec.LookPath("openssl")
	if err != nil {
		const hint = "openssl is not installed; run: apt-get install openssl"
		if os.Getenv("CI") == "true" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	dir := t.TempDir()
	file := func(name string, ders ...[]byte) string {
		var text strings.Builder
		for _, der := range ders {
			if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := []string{"verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile", file("root.pem", root.Raw)}
	if len(chain) > 1 {
		args = append(args, "-untrusted", file("intermediates.pem", chain[1:]...))
	}
	leaf := file("leaf.pem", chain[0])
	as := [][]string{{"-purpose", "sslclient"}}
	for _, name := range names {
		how := "-verify_hostname"
		if net.ParseIP(name) != nil {
			how = "-verify_ip"
		}
		as = append(as, []string{"-purpose", "sslserver", how, strings.Replace(name, "*", "any", 1)})
	}
	for _, options := range as {
		cmd := exec.CommandContext(t.Context(), program, append(append(args[:len(args):len(args)], options...), leaf)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("openssl %v: %v\n%s", options, err, out)
		}
	}
}
