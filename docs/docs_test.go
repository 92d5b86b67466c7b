// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// TestProgramsCompile builds every Go program of the pages, and the README's
// fragments inside a function.
func TestProgramsCompile(t *testing.T) {
	n := 0
	for _, page := range []string{"../README.md", "go.md", "operating.md", "fleet.md", "acme.md", "vault.md", "cfssl.md", "awspca.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range goBlock.FindAllStringSubmatch(string(text), -1) {
			n++
			code := m[1]
			if !strings.HasPrefix(code, "package ") {
				code = fragment(code)
			}
			file := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("program %d of %s: %v\n%s", i+1, page, err, out)
			}
		}
	}
	if n < 4 {
		t.Errorf("only %d programs were found", n)
	}
}

func fragment(code string) string {
	return fmt.Sprintf(`package main

import (
	"context"
	"net/http"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/reload"
	"github.com/keyturn/keyturn/replica"
)

var (
	_ keyturn.Store
	_ replica.Config
	_ reload.Options
)

func serve(ctx context.Context, dir string, handler http.Handler) error {
%s}

func main() { _ = serve(context.Background(), "", nil) }
`, code)
}

// TestExampleCertificates runs the recipe of the examples' page: both sides believe what
// it makes.
func TestExampleCertificates(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed; run: apt-get install openssl")
	}
	text, err := os.ReadFile("../examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, m := range shBlock.FindAllStringSubmatch(string(text), -1) {
		sh := exec.Command("sh", "-eu", "-c", m[1])
		sh.Dir = dir
		if out, err := sh.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for side, usage := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth} {
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, side+".pem"), filepath.Join(dir, side+"-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "localhost", KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("%s: %v", side, err)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// TestLinks holds that what the pages point at is there.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("../*.md")
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob("../*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(pages, own...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links %s, which is not there", page, m[1])
			}
		}
	}
}
