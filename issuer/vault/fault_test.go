// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/vaultserver"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

// A fault is something that is wrong, and what an error has to say of it.
type fault struct {
	title   string
	harm    func(t *testing.T, v *vaultserver.Server)
	mend    func(t *testing.T, v *vaultserver.Server)
	config  vault.Config
	request *x509.CertificateRequest
	kind    string // of the Problem
	refused bool   // asking again is of no use
	says    string // what to do
}

// TestFaults has each fault of a server and of its configuration told from the others,
// and everything work again afterwards.
func TestFaults(t *testing.T) {
	v := vaultserver.Start(t)
	v.PKI(t)
	v.Mount(t, "empty")
	role(t, v, "web", map[string]any{"allow_any_name": false, "allowed_domains": "example.com", "allow_subdomains": true, "allow_ip_sans": false, "allowed_uri_sans": ""})
	role(t, v, "rsa", map[string]any{"key_type": "rsa"})
	role(t, v, "named", map[string]any{"require_cn": true})
	role(t, v, "long", map[string]any{"ttl": "70000h", "max_ttl": "80000h"})
	v.Write(t, "empty/roles/web", map[string]any{"allow_any_name": true})
	root := vault.Token{Value: v.RootToken}
	web := signer(t, v, "web")
	good := issuertest.Named(t, "www.example.com")
	for _, f := range []fault{
		{
			title: "sealed", harm: seal, mend: unseal,
			kind: vault.Sealed, says: "unseal it",
		}, {
			title: "nobody active", harm: stepDown, mend: awaitActive,
			kind: vault.Standby, says: "vault status",
		}, {
			title: "stopped", harm: stop, mend: restart,
			kind: vault.Unreachable, says: "connection refused",
		}, {
			title: "hang", harm: hang, mend: resume,
			config: vault.Config{Timeout: time.Second},
			kind:   vault.Unreachable, says: "no answer came in time",
		}, {
			title: "no permission", config: vault.Config{Auth: web, Role: "rsa"},
			kind: vault.PermissionDenied, refused: true, says: `path "pki/sign/rsa" { capabilities = ["update"] }`,
		}, {
			title: "unknown token", config: vault.Config{Auth: vault.Token{Value: "hvs.CAESIJunk"}},
			kind: vault.PermissionDenied, says: "give a new one",
		}, {
			title: "no auth method", config: vault.Config{Auth: vault.AppRole{Mount: "nowhere", RoleID: "a", SecretID: "b"}},
			kind: vault.LoginRefused, says: "vault auth list",
		}, {
			title: "unknown role", config: vault.Config{Auth: root, Role: "nobody"},
			kind: vault.UnknownRole, refused: true, says: "make the role",
		}, {
			title: "no mount", config: vault.Config{Auth: root, Mount: "nowhere/at/all"},
			kind: vault.UnknownMount, refused: true, says: "vault secrets list",
		}, {
			title: "another engine", config: vault.Config{Auth: root, Mount: "cubbyhole"},
			kind: vault.UnknownMount, refused: true, says: "vault secrets list",
		}, {
			title: "no CA", config: vault.Config{Auth: root, Mount: "empty"},
			kind: vault.ServerError, says: "give the engine a CA",
		}, {
			title: "name not allowed", request: issuertest.Named(t, "www.example.net"),
			kind: vault.Rejected, refused: true, says: "allowed_domains",
		}, {
			title: "address not allowed", request: issuertest.Request(t, x509.CertificateRequest{DNSNames: []string{"a.example.com"}, IPAddresses: loopback}),
			kind: vault.Rejected, refused: true, says: "allow_ip_sans=true",
		}, {
			title: "URI not allowed", request: issuertest.Request(t, x509.CertificateRequest{DNSNames: []string{"a.example.com"}, URIs: spiffe(t)}),
			kind: vault.Rejected, refused: true, says: "allowed_uri_sans",
		}, {
			title: "key type not allowed", config: vault.Config{Auth: root, Role: "rsa"},
			kind: vault.Rejected, refused: true, says: "key_type",
		}, {
			title: "no common name", config: vault.Config{Auth: root, Role: "named"},
			request: issuertest.Request(t, x509.CertificateRequest{IPAddresses: loopback}),
			kind:    vault.Rejected, refused: true, says: "require_cn=false",
		}, {
			title: "longer than the CA", config: vault.Config{Auth: root, Role: "long"},
			kind: vault.Rejected, refused: true, says: "leaf_not_after_behavior",
		}, {
			title: "another root", config: vault.Config{Roots: x509.NewCertPool()},
			kind: vault.Unreachable, says: "VAULT_CACERT",
		},
	} {
		t.Run(f.title, func(t *testing.T) {
			if f.config.Auth == nil {
				f.config.Auth = web
			}
			if f.request == nil {
				f.request = good
			}
			ca := newIssuer(t, v, f.config)
			if f.config.Roots != nil {
				ca = unverified(t, v, f.config)
			}
			if f.harm != nil {
				issuertest.Issue(t, ca, good, 0) // so that there is a session
				f.harm(t, v)
			}
			checkFault(t, ca, f, v)
			if f.mend != nil {
				f.mend(t, v)
				issuertest.Issue(t, ca, good, 0)
			}
		})
	}
}

func seal(t *testing.T, v *vaultserver.Server)   { v.Seal(t) }
func unseal(t *testing.T, v *vaultserver.Server) { v.Unseal(t) }
func stop(t *testing.T, v *vaultserver.Server)   { v.Stop(t) }
func hang(t *testing.T, v *vaultserver.Server)   { v.Hang(t) }
func resume(t *testing.T, v *vaultserver.Server) { v.Continue(t) }
func restart(t *testing.T, v *vaultserver.Server) {
	v.Restart(t)
	v.Unseal(t)
}

// stepDown has the active server give up, which then does nothing for ten seconds.
func stepDown(t *testing.T, v *vaultserver.Server) {
	t.Helper()
	if err := v.Client().Sys().StepDownWithContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.Await(t, 429)
}

func awaitActive(t *testing.T, v *vaultserver.Server) { v.Await(t, 200) }

// unverified is newIssuer with the roots of the configuration.
func unverified(t *testing.T, v *vaultserver.Server, c vault.Config) *vault.Issuer {
	t.Helper()
	c.Address, c.Role = v.Address, "web"
	ca, err := vault.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
	return ca
}

func checkFault(t *testing.T, ca issuer.Issuer, f fault, v *vaultserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	chain, err := ca.Issue(ctx, f.request, 0)
	if err == nil || chain != nil {
		t.Fatalf("%d certificates, error %v", len(chain), err)
	}
	var p *issuer.Problem
	if !errors.As(err, &p) || p.Type != f.kind {
		t.Errorf("the problem is %+v, want type %s", p, f.kind)
	}
	if errors.Is(err, issuer.ErrRefused) != f.refused {
		t.Errorf("refused: %v, want %v", !f.refused, f.refused)
	}
	if !strings.Contains(err.Error(), f.says) || !strings.Contains(err.Error(), v.Address) {
		t.Errorf("it says nothing of %q and %s", f.says, v.Address)
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), v.RootToken) || strings.Contains(err.Error(), "hvs.") {
		t.Error("it has several lines, or a token in it")
	}
}

// TestTokenEnds has a token revoked while it is used, in favour of another in the
// file that it is read from.
func TestTokenEnds(t *testing.T) {
	v := vaultserver.Start(t)
	v.PKI(t)
	role(t, v, "web", nil)
	first, second := signer(t, v, "web").Value, signer(t, v, "web").Value
	file := write(t, "token", first+"\n")
	ca := newIssuer(t, v, vault.Config{Auth: vault.Token{File: file}})
	csr := issuertest.Named(t, "www.example.com")
	issuertest.Issue(t, ca, csr, 0)
	if err := v.Client().Auth().Token().RevokeTreeWithContext(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	checkFault(t, ca, fault{request: csr, kind: vault.PermissionDenied, says: "give a new one"}, v)
	rewrite(t, file, second)
	issuertest.Issue(t, ca, csr, 0)
}

// TestQuota has a rate limit of Vault's own say when to come back.
func TestQuota(t *testing.T) {
	v := vaultserver.Start(t)
	v.PKI(t)
	role(t, v, "web", nil)
	v.Write(t, "sys/quotas/config", map[string]any{"enable_rate_limit_response_headers": true})
	v.Write(t, "sys/quotas/rate-limit/one", map[string]any{"path": "pki/", "rate": 1, "interval": "1h"})
	ca := newIssuer(t, v, vault.Config{Auth: signer(t, v, "web")})
	csr := issuertest.Named(t, "www.example.com")
	issuertest.Issue(t, ca, csr, 0)
	_, err := ca.Issue(t.Context(), csr, 0)
	var p *issuer.Problem
	if !errors.As(err, &p) || p.Type != vault.RateLimited {
		t.Fatal(err)
	}
	after, said := issuer.RetryAfter(err)
	if left := time.Until(after); !said || left < time.Minute || left > time.Hour {
		t.Errorf("it is to be asked again in %s (%v), by its own words in an hour: %v", left, said, err)
	}
}

// TestStandby asks a server that waits: it forwards, it redirects, and it has nobody
// to do so to.
func TestStandby(t *testing.T) {
	first := vaultserver.Start(t)
	first.PKI(t)
	role(t, first, "web", nil)
	second := first.Standby(t)
	auth := signer(t, first, "web")
	csr := issuertest.Named(t, "www.example.com")
	ask := func(address string) *vault.Issuer {
		roots := pool(t, first, second)
		ca, err := vault.New(vault.Config{Address: address, Roots: roots, Role: "web", Auth: auth})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
		return ca
	}
	forwarded := ask(second.Address)
	issuertest.Issue(t, forwarded, csr, 0)

	redirected := ask(noForwarding(t, second))
	issuertest.Issue(t, redirected, csr, 0)

	// Without a majority of the cluster, the standby goes on believing in who is gone.
	first.Stop(t)
	for _, ca := range []*vault.Issuer{forwarded, redirected} {
		_, err := ca.Issue(t.Context(), csr, 0)
		var p *issuer.Problem
		if !errors.As(err, &p) || p.Type != vault.Unreachable || errors.Is(err, issuer.ErrRefused) {
			t.Fatalf("the error is %v", err)
		}
		if !strings.Contains(err.Error(), "a standby named") {
			t.Errorf("it does not say who named the address: %v", err)
		}
	}
	first.Restart(t)
	first.Unseal(t)
	issuertest.Issue(t, forwarded, csr, 0)
}
