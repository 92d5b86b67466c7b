// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/vaultserver"
	"github.com/keyturn/keyturn/replica"
	"github.com/keyturn/keyturn/seal"
)

// TestVaultStopped stops Vault until a renewal has failed. Handshakes go on all the
// time, with a certificate that is valid, and the renewal catches up when Vault is
// back.
func TestVaultStopped(t *testing.T) {
	v := vaultserver.Start(t)
	root := v.PKI(t)
	v.Write(t, "pki/roles/web", map[string]any{"allow_any_name": true, "key_type": "any", "ttl": "2m", "max_ttl": "2m"})
	v.Policy(t, "sign", "pki/sign/web", "pki/revoke")
	f, m := newFleet(t)
	configure(t, m, v, "1h")

	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer running.Wait()
	defer cancel()
	running.Go(func() { m.Run(ctx) })
	before, err := config.ParseRenewBefore("110s")
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Make(t.Context(), Request{Names: []string{"www.example.com"}, RenewBefore: before}) // due in ten seconds
	if err != nil {
		t.Fatal(err)
	}
	shake := handshakes(t, f, root)
	if err := shake(c); err != nil {
		t.Fatal(err)
	}

	v.Stop(t)
	c = until(t, m, c.ID, shake, func(c *Managed) bool { return c.Failure != nil })
	if c.Generation != 1 || !strings.Contains(c.Failure.Message, "connection refused") {
		t.Fatalf("generation %d, failure %+v", c.Generation, c.Failure)
	}
	v.Restart(t)
	v.Unseal(t)
	c = until(t, m, c.ID, shake, func(c *Managed) bool { return c.Generation > 1 })
	if c.Failure != nil {
		t.Errorf("the failure %q is still noted", c.Failure.Message)
	}
	until(t, m, c.ID, shake, func(c *Managed) bool { return shake(c) == nil })
	if err := m.Revoke(t.Context(), c.ID, RevokeOptions{}); err != nil {
		t.Error(err)
	}
}

// configure lets the managers log in by a new token, which they renew before the period
// ends, and returns it.
func configure(t *testing.T, m *Manager, v *vaultserver.Server, period string) (token string) {
	t.Helper()
	roots, err := os.ReadFile(v.Roots)
	if err != nil {
		t.Fatal(err)
	}
	token = v.Token(t, api.TokenCreateRequest{Policies: []string{"sign"}, Period: period})
	text := fmt.Sprintf("issuers:\n  vault:\n    type: vault\n    address: %s\n    role: web\n    auth: {method: token, token: %s}\n    roots: |\n      %s\n",
		v.Address, token, strings.ReplaceAll(strings.TrimSpace(string(roots)), "\n", "\n      "))
	_, at, err := m.ConfigText(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.UpdateConfig(t.Context(), []byte(text), at); err != nil {
		t.Fatal(err)
	}
	return token
}

// until looks at a certificate, and makes handshakes, until it is as wanted.
func until(t *testing.T, m *Manager, id string, shake func(*Managed) error, wanted func(*Managed) bool) *Managed {
	t.Helper()
	for {
		c, err := m.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if wanted(c) {
			return c
		}
		if err := shake(c); err != nil && !errors.Is(err, errOther) {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// errOther means that another generation is served than the newest.
var errOther = errors.New("another generation is served")

// handshakes returns what makes a handshake with a server that has a replica, as a
// client who trusts the root.
func handshakes(t *testing.T, f *fleet, root *x509.Certificate) func(*Managed) error {
	t.Helper()
	r, err := replica.Open(t.Context(), replica.Config{
		Log: f.log, Managers: []*seal.VerifyKey{f.identity.Signing.Public()}, Keys: []*seal.PrivateKey{f.group},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return func(c *Managed) error {
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		go func() { _ = tls.Server(far, r.Store().ServerConfig()).HandshakeContext(t.Context()) }() // the client's tells
		client := tls.Client(near, &tls.Config{RootCAs: roots, ServerName: c.Spec.Names[0]})
		if err := client.HandshakeContext(t.Context()); err != nil {
			return err
		}
		want, err := c.Leaf()
		if err == nil && !want.Equal(client.ConnectionState().PeerCertificates[0]) {
			return errOther
		}
		return err
	}
}
