// SPDX-License-Identifier: Apache-2.0

package lineage_test

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/lineage"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
)

// newPair makes a certificate and returns chain and key as PEM.
func newPair(t *testing.T, kind issuer.KeyType, name string) (chain, key []byte, signer crypto.Signer) {
	t.Helper()
	ca, err := localca.New(localca.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if signer, err = kind.Generate(); err != nil {
		t.Fatal(err)
	}
	csr, err := issuer.NewRequest(signer, []string{name})
	if err != nil {
		t.Fatal(err)
	}
	ders, err := ca.Issue(t.Context(), csr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range ders {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), signer
}

func write(t *testing.T, text []byte, path ...string) string {
	t.Helper()
	file := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// keep writes a lineage as certbot does: versions in archive, links in live.
func keep(t *testing.T, dir, name string) crypto.Signer {
	t.Helper()
	chain, key, signer := newPair(t, issuer.RSA2048, name)
	for file, text := range map[string][]byte{"fullchain": chain, "privkey": key} {
		write(t, text, dir, "archive", name, file+"2.pem")
		link := filepath.Join(dir, "live", name, file+".pem")
		if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..", "..", "archive", name, file+"2.pem"), link); err != nil {
			t.Fatal(err)
		}
	}
	return signer
}

func TestCertbot(t *testing.T) {
	dir := t.TempDir()
	keep(t, dir, "b.example")
	key := keep(t, dir, "a.example")
	write(t, []byte("what this is"), dir, "live", "README")
	pairs, err := lineage.Certbot(dir)
	if err != nil || len(pairs) != 2 || pairs[0].Name != "a.example" || pairs[1].Name != "b.example" {
		t.Fatalf("%+v, %v", pairs, err)
	}
	chain, got, err := pairs[0].Read()
	if err != nil || len(chain) != 2 || !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(key.Public()) {
		t.Errorf("%d certificates, %v", len(chain), err)
	}
	one, err := lineage.Certbot(filepath.Join(dir, "live", "b.example") + "/")
	if err != nil || len(one) != 1 || one[0].Name != "b.example" {
		t.Errorf("%+v, %v", one, err)
	}
	if _, _, err := one[0].Read(); err != nil {
		t.Error(err)
	}
}

// TestCertbotIncomplete: a lineage whose files are gone is found, and said to be
// so when it is read.
func TestCertbotIncomplete(t *testing.T) {
	dir := t.TempDir()
	keep(t, dir, "a.example")
	if err := os.RemoveAll(filepath.Join(dir, "archive")); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{dir, filepath.Join(dir, "live", "a.example")} {
		pairs, err := lineage.Certbot(at)
		if err != nil || len(pairs) != 1 {
			t.Fatalf("%+v, %v", pairs, err)
		}
		if _, _, err := pairs[0].Read(); err == nil || !strings.Contains(err.Error(), "fullchain.pem") {
			t.Error(err)
		}
	}
}

func TestCertbotRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := lineage.Certbot(dir); err == nil || !strings.Contains(err.Error(), "neither live/ nor fullchain.pem") {
		t.Error(err)
	}
	write(t, nil, dir, "live", "README")
	if _, err := lineage.Certbot(dir); err == nil || !strings.Contains(err.Error(), "there is no certificate in") {
		t.Error(err)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	chain, key, _ := newPair(t, issuer.ECDSAP256, "a.example")
	_, other, _ := newPair(t, issuer.ECDSAP256, "a.example")
	locked := bytes.ReplaceAll(key, []byte("PRIVATE KEY"), []byte("ENCRYPTED PRIVATE KEY"))
	for want, files := range map[string][2][]byte{
		"private key does not match public key":        {chain, other},
		"is encrypted: decrypt it first":               {chain, locked},
		"failed to find any PEM data in certificate":   {[]byte("hunter2"), key},
		"failed to find any PEM data in key":           {chain, []byte("hunter2")},
		"may have":                                     {chain, bytes.Repeat([]byte("hunter2\n"), 1<<18)},
		"failed to find PEM block with type ending in": {chain, chain},
	} {
		pair := lineage.Pair{Chain: write(t, files[0], dir, "chain.pem"), Key: write(t, files[1], dir, "key.pem")}
		_, _, err := pair.Read()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v; want %s", err, want)
		}
	}
	chain, both, _ := newPair(t, issuer.ECDSAP384, "a.example")
	all := write(t, append(both, chain...), dir, "all.pem")
	if _, _, err := (lineage.Pair{Chain: all, Key: all}).Read(); err != nil {
		t.Error("both in one file:", err)
	}
	if _, _, err := (lineage.Pair{Chain: all, Key: filepath.Join(dir, "none.pem")}).Read(); err == nil || !strings.Contains(err.Error(), "reading the private key") {
		t.Error(err)
	}
}
