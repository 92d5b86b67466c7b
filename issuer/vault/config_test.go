// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/internal/hostileca"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

// requests are what a server was asked.
type requests struct {
	mu  sync.Mutex
	all []*http.Request // guarded by mu
}

func (r *requests) take() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.all
	r.all = nil
	return all
}

// recorder returns a server that fails whatever it is asked, but for tokens.
func recorder(t *testing.T) (*httptest.Server, *requests) {
	t.Helper()
	asked := new(requests)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.mu.Lock()
		asked.all = append(asked.all, r)
		asked.mu.Unlock()
		if strings.HasSuffix(r.URL.Path, "/lookup-self") {
			hostileca.Say(200, `{"data":{"ttl":0,"renewable":false}}`)(w, r)
			return
		}
		hostileca.Say(500, `{"errors":["out of order"]}`)(w, r)
	}))
	t.Cleanup(server.Close)
	return server, asked
}

// TestEnvironment has each variable heard where the configuration says nothing, and
// not where it does.
func TestEnvironment(t *testing.T) {
	server, asked := recorder(t)
	other, strayed := recorder(t)
	roots := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	base := map[string]string{"VAULT_CACERT_BYTES": roots, "VAULT_TOKEN": "hvs.environment", "VAULT_MAX_RETRIES": "5", "VAULT_WRAP_TTL": "5m"}
	for _, test := range []struct {
		title     string
		env       map[string]string
		config    vault.Config
		token     string
		namespace string
		path      string
	}{
		{
			title: "all from the environment", env: map[string]string{"VAULT_ADDR": server.URL, "VAULT_NAMESPACE": "team"},
			token: "hvs.environment", namespace: "team", path: "/v1/pki/sign/web",
		}, {
			title: "an agent", env: map[string]string{"VAULT_ADDR": other.URL, "VAULT_AGENT_ADDR": server.URL},
			token: "hvs.environment", path: "/v1/pki/sign/web",
		}, {
			title: "all from the configuration", env: map[string]string{"VAULT_ADDR": other.URL, "VAULT_AGENT_ADDR": other.URL, "VAULT_NAMESPACE": "team"},
			config: vault.Config{Address: server.URL, Namespace: "mine", Mount: "/a/b/", Auth: vault.Token{Value: "hvs.mine"}},
			token:  "hvs.mine", namespace: "mine", path: "/v1/a/b/sign/web",
		}, {
			title: "a name", env: map[string]string{"VAULT_ADDR": server.URL, "VAULT_TLS_SERVER_NAME": "other.example"},
			config: vault.Config{ServerName: "example.com"}, // which httptest's certificate has
			token:  "hvs.environment", path: "/v1/pki/sign/web",
		},
	} {
		t.Run(test.title, func(t *testing.T) {
			for _, env := range []map[string]string{base, test.env} {
				for name, value := range env {
					t.Setenv(name, value)
				}
			}
			test.config.Role = "web"
			ca, err := vault.New(test.config)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
			if _, err := ca.Issue(t.Context(), issuertest.Named(t, "www.example.com"), 0); err == nil || !strings.Contains(err.Error(), "out of order (serverError)") {
				t.Fatal(err)
			}
			all := asked.take()
			if len(all) != 2 || all[1].URL.Path != test.path || len(strayed.take()) != 0 {
				t.Fatalf("%d requests, the last of which is %v; want a look at the token, and %s once", len(all), all[len(all)-1].URL, test.path)
			}
			for _, r := range all {
				if token, ns := r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace"); token != test.token || ns != test.namespace {
					t.Errorf("the token %q and the namespace %q were sent", token, ns)
				}
				if ttl := r.Header.Get("X-Vault-Wrap-TTL"); ttl != "" {
					t.Errorf("the answer was wanted wrapped (%s)", ttl)
				}
			}
		})
	}
}

// TestProxy has a proxy in the environment, which an agent on this machine is not
// asked by: what goes there is not encrypted.
func TestProxy(t *testing.T) {
	strayed := make(chan string, 4)
	proxy := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		strayed <- r.Header.Get("X-Vault-Token")
	}))
	t.Cleanup(proxy.Close)
	agent := httptest.NewServer(hostileca.Say(500, `{"errors":["out of order"]}`))
	t.Cleanup(agent.Close)
	for _, name := range []string{"VAULT_HTTP_PROXY", "VAULT_PROXY_ADDR"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, proxy.URL)
			ca, err := vault.New(vault.Config{Address: agent.URL, Role: "web", Auth: vault.Token{Value: "hvs.secret"}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
			if _, err := ca.Issue(t.Context(), issuertest.Named(t, "www.example.com"), 0); err == nil || !strings.Contains(err.Error(), "out of order") {
				t.Error(err)
			}
			select {
			case token := <-strayed:
				t.Errorf("the proxy was sent the token %q", token)
			default:
			}
		})
	}
}

// TestSkipVerify has the environment trust any server, and the configuration name one.
func TestSkipVerify(t *testing.T) {
	server, asked := recorder(t)
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	for _, c := range []vault.Config{{ServerName: "other.example"}, {Roots: x509.NewCertPool()}} {
		c.Address, c.Role, c.Auth = server.URL, "web", vault.Token{Value: "hvs.secret"}
		ca, err := vault.New(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
		_, err = ca.Issue(t.Context(), issuertest.Named(t, "www.example.com"), 0)
		if err == nil || !strings.Contains(err.Error(), "x509: ") || len(asked.take()) != 0 {
			t.Errorf("a server that is not the one: %v", err)
		}
	}
}

// TestNewRefuses configurations that cannot be meant, without a word of secrets.
func TestNewRefuses(t *testing.T) {
	token := vault.Token{Value: "hvs.secret"}
	for want, c := range map[string]vault.Config{
		"no role is given":             {Auth: token},
		"has a slash in it":            {Auth: token, Role: "pki/web"},
		`the role ".."`:                {Auth: token, Role: ".."},
		`the mount "a/../b"`:           {Auth: token, Role: "web", Mount: "a/../b"},
		`the mount "a?b"`:              {Auth: token, Role: "web", Mount: "a?b"},
		"cannot be negative":           {Auth: token, Role: "web", Timeout: -1},
		"is not https":                 {Auth: token, Role: "web", Address: "http://vault.example.com:8200"},
		"is not a URL of Vault":        {Auth: token, Role: "web", Address: "vault.example.com"},
		"has a user":                   {Auth: token, Role: "web", Address: "https://me:hvs.secret@vault.example.com"},
		"no way to log in is given":    {Role: "web"},
		"a token and a file":           {Role: "web", Auth: vault.Token{Value: "hvs.secret", File: "f"}},
		"no role ID":                   {Role: "web", Auth: vault.AppRole{SecretID: "hvs.secret"}},
		"a secret ID and a file":       {Role: "web", Auth: vault.AppRole{RoleID: "a", SecretID: "hvs.secret", SecretIDFile: "f"}},
		"said to be wrapped":           {Role: "web", Auth: vault.AppRole{RoleID: "a", Wrapped: true}},
		"Kubernetes: no role":          {Role: "web", Auth: vault.Kubernetes{}},
		"give the token or the file":   {Role: "web", Auth: vault.JWT{Value: "hvs.secret", File: "f"}},
		"both":                         {Role: "web", Auth: vault.Certificate{CertFile: "f"}},
		"VAULT_CLIENT_CERT is not set": {Role: "web", Auth: vault.Certificate{}},
		`in: the mount "a//b"`:         {Role: "web", Auth: vault.AppRole{RoleID: "a", Mount: "a//b"}},
		`the mount "a\nb"`:             {Role: "web", Auth: token, Mount: "a\nb"},
	} {
		_, err := vault.New(c)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hvs.") {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := vault.New(vault.Config{Role: "web", Auth: token, Address: "me:hvs.secret@vault.example.com"}); err == nil || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("a password without a scheme: %v", err)
	}
	t.Setenv("VAULT_CLIENT_TIMEOUT", "soon")
	if _, err := vault.New(vault.Config{Role: "web", Auth: token}); err == nil || !strings.Contains(err.Error(), "VAULT_CLIENT_TIMEOUT") {
		t.Errorf("a bad variable: %v", err)
	}
}
