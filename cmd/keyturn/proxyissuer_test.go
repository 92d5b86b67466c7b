// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/vaultserver"
)

// TestProxyVault has certificates signed as they are asked for, and goes on when Vault is
// gone: from memory and, after a restart, from the cache.
func TestProxyVault(t *testing.T) {
	s := newStage(t)
	v := vaultserver.Start(t)
	s.roots.AddCert(v.PKI(t))
	v.Write(t, "pki/roles/web", map[string]any{
		"allowed_domains": "localhost,example.com", "allow_localhost": true, "allow_bare_domains": true, "allow_subdomains": true,
		"allow_ip_sans": false, "allowed_uri_sans": "spiffe://example.com/*", "key_type": "any", "require_cn": false, "ttl": "1h",
	})
	v.Policy(t, "sign", "pki/sign/web")
	token := filepath.Join(s.dir, "token")
	if err := os.WriteFile(token, []byte(v.Token(t, api.TokenCreateRequest{Policies: []string{"sign"}})), 0o600); err != nil {
		t.Fatal(err)
	}
	address, admin := freeAddress(t), freeAddress(t)
	start := func() *proxyProcess {
		cmd := exec.Command("keyturn", "proxy", "--to", s.service.Listener.Addr().String(), "--listen", address, "--admin", admin, "--drain-delay", "none",
			"--issuer", "vault", "--issuer-set", "address="+v.Address, "--issuer-set", "role=web", "--issuer-set", "auth.method=token", "--issuer-set", "auth.token_file="+token,
			"--name", "localhost", "--name", "*.example.com", "--name", "spiffe://example.com/proxy", "--cache", filepath.Join(s.dir, "cache"))
		cmd.Env = append(os.Environ(), "VAULT_CACERT="+v.Roots)
		return s.run(t, admin, cmd)
	}
	p := start()
	ask := func(name string) error {
		l := newLoad(t)
		c := s.client(l, 2, false)
		c.Transport = dialTo(c, address)
		return get(c, "https://"+name+"/", "hello")
	}
	for _, name := range []string{"localhost", "a.example.com", "b.example.com"} {
		if err := ask(name); err != nil {
			t.Error(err)
		}
	}
	if err := ask("a.example.net"); err == nil {
		t.Error("a name that is not allowed has a certificate")
	}
	v.Stop(t)
	for i := range 4 {
		if err := ask("a.example.com"); err != nil {
			t.Error(err)
		}
		if i%2 == 0 {
			p.end(t)
		} else {
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		p = start()
	}
	if err := ask("c.example.com"); err == nil {
		t.Error("a new name has a certificate of nobody")
	}
}

// TestProxyACME obtains a certificate of Pebble, which looks at the proxy's own port.
func TestProxyACME(t *testing.T) {
	s := newStage(t)
	ca := acmetest.Start(t, acmetest.Options{})
	s.roots = ca.IssuerRoots()
	var roots strings.Builder
	for line := range strings.Lines(ca.WebRoots()) {
		roots.WriteString("    " + line)
	}
	address, admin := net.JoinHostPort("127.0.0.1", strconv.Itoa(ca.TLSPort)), freeAddress(t)
	file := filepath.Join(s.dir, "proxy.yaml")
	text := fmt.Sprintf("to: %s\nlisten: %s\nadmin: %s\ndrain_delay: none\ncache: %s\nname: [www.example.com, example.com]\nissuer:\n  type: acme\n  directory: %s\n  terms_agreed: true\n  skip_caa: true\n  roots: |\n%s\n",
		s.service.Listener.Addr(), address, admin, filepath.Join(s.dir, "acme"), ca.Directory(), roots.String())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.run(t, admin, exec.Command("keyturn", "proxy", "--config", file))
	for _, name := range []string{"example.com", "www.example.com"} {
		c := s.client(newLoad(t), 1, false)
		c.Transport = dialTo(c, address)
		if err := get(c, "https://"+name+"/", "hello"); err != nil {
			t.Error(err)
		}
	}
	p.end(t)
}

// TestProxyReplica has a certificate come over the bus, and a new one after it.
func TestProxyReplica(t *testing.T) {
	s := newStage(t)
	data, joined := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "joined")
	serve := exec.Command("keyturn", "serve", "--data", data, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0")
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = serve.Process.Kill()
		_ = serve.Wait()
	})
	for end := time.Now().Add(patience); answers(data) != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(answers(data))
		}
	}
	conf := filepath.Join(s.dir, "conf.yaml")
	if err := os.WriteFile(conf, []byte("issuers: {internal: {type: local}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `set -eu; export KEYTURN_DATA=` + data + `
		keyturn conf update < ` + conf + `
		keyturn cert mk localhost --subdomain
		keyturn ca export root --out ` + filepath.Join(s.dir, "bus.pem") + `
		keyturn replica token default | keyturn replica join - --dir ` + joined
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	root, err := os.ReadFile(filepath.Join(s.dir, "bus.pem"))
	if err != nil || !s.roots.AppendCertsFromPEM(root) {
		t.Fatal(err)
	}
	address, admin := freeAddress(t), freeAddress(t)
	p := s.run(t, admin, exec.Command("keyturn", "proxy", "--to", s.service.Listener.Addr().String(), "--listen", address, "--admin", admin, "--drain-delay", "none", "--dir", joined))
	l := newLoad(t)
	c := s.client(l, 1, false)
	_, port, _ := net.SplitHostPort(address)
	l.keep("requests", func() error { return get(c, "https://localhost:"+port, "") })
	seen := func() (n int) {
		l.serials.Range(func(any, any) bool { n++; return true })
		return n
	}
	for end := time.Now().Add(patience); seen() < 2 && time.Now().Before(end); {
		if out, err := exec.Command("sh", "-c", "keyturn cert renew --group default --data "+data).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if seen() < 2 {
		t.Error("the new certificate does not come")
	}
	l.stopAt(1)
	p.end(t)
}

// dialTo is a client's transport to one address, whatever the name.
func dialTo(c *http.Client, address string) http.RoundTripper {
	t := c.Transport.(*http.Transport)
	t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	return t
}
