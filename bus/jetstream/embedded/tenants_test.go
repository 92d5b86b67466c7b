// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/bus/jetstream/embedded"
)

// hosted is a server with a tenant that has an account of its own.
func hosted(t *testing.T, dir string) *embedded.Server {
	t.Helper()
	s, err := embedded.Start(embedded.Config{
		Dir: dir, Listen: "127.0.0.1:0", Tenants: []string{"red"}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	for _, tenant := range []string{"red", "blue"} {
		if _, err := s.Create(t.Context(), tenant, ""); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// manager connects with credentials that the secret makes, and returns the user.
func manager(t *testing.T, s *embedded.Server, tenant string, secret []byte) (*jetstream.Log, string) {
	t.Helper()
	mint, err := jetstream.NewMint(secret)
	if err != nil {
		t.Fatal(err)
	}
	return login(t, s, tenant, func(user string) (string, error) { return mint.Manager(tenant, "ops", user) })
}

// login connects as a new user, who is granted something.
func login(t *testing.T, s *embedded.Server, tenant string, by func(user string) (string, error)) (*jetstream.Log, string) {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	user, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	grant, err := by(user)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := jwt.FormatUserConfig(grant, seed)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), bus.ManagerCreds)
	if err := os.WriteFile(file, creds, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := jetstream.Connect(jetstream.Options{URL: s.URL(), Creds: file, Tenant: tenant, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	if err := l.Connected(t.Context()); err != nil {
		t.Fatal(err)
	}
	return l, user
}

// TestTenantsOfTheirOwn: whoever can make credentials in one account reaches
// nothing of another tenant's, not even with credentials that name him.
func TestTenantsOfTheirOwn(t *testing.T) {
	s := hosted(t, t.TempDir())
	red, _ := manager(t, s, "red", s.Secret("red"))
	if _, err := red.Append(t.Context(), "state/a", bus.Position{}, []byte("red's")); err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"blue", "other"} {
		forged, _ := manager(t, s, "red", s.Secret(foreign))
		if e, err := forged.Get(t.Context(), "state/a"); err == nil {
			t.Errorf("credentials made in the account of %s read %q", foreign, e.Data)
		}
		if _, err := forged.Append(t.Context(), "state/a", bus.Position{}, []byte("forged")); err == nil {
			t.Errorf("credentials made in the account of %s write", foreign)
		}
	}
	blue, _ := manager(t, s, "blue", s.Secret("blue"))
	if _, err := blue.Get(t.Context(), "state/a"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("blue reads red's key: %v", err)
	}
}

// TestRevokeByRequest: a manager elsewhere has the server revoke, in his account,
// and a restart keeps it.
func TestRevokeByRequest(t *testing.T) {
	dir := t.TempDir()
	s := hosted(t, dir)
	red, _ := manager(t, s, "red", s.Secret("red"))
	gone, user := manager(t, s, "red", s.Secret("red"))
	if err := red.Revoke(t.Context(), []string{user}); err != nil {
		t.Fatal(err)
	}
	if err := red.Revoke(t.Context(), []string{user, user}); err != nil {
		t.Errorf("again: %v", err)
	}
	if _, err := gone.Get(t.Context(), "state/a"); err == nil || errors.Is(err, bus.ErrNotFound) {
		t.Errorf("who is revoked reads: %v", err)
	}
	if _, err := red.Get(t.Context(), "state/a"); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("who is not: %v", err)
	}
	if err := red.Revoke(t.Context(), []string{"nobody"}); err == nil {
		t.Error("what is no user is revoked")
	}
	text, err := os.ReadFile(filepath.Join(dir, "tenants", "red", "revoked"))
	if err != nil || string(text) != user+"\n" {
		t.Errorf("kept: %q, %v", text, err)
	}
}

// TestDurability: the server says by itself that it writes every entry to the disk,
// to the managers of each tenant.
func TestDurability(t *testing.T) {
	s := hosted(t, t.TempDir())
	for _, tenant := range []string{"red", "blue"} {
		l, _ := manager(t, s, tenant, s.Secret(tenant))
		d, err := l.Durability(t.Context())
		if err != nil || len(d.Reduced) != 0 || len(d.Servers) != 1 || d.Servers[0].Sync != "always" {
			t.Errorf("%s: %+v, %v", tenant, d, err)
		}
	}
}

// TestLongNames: credentials grow with the names in them, and still log in.
func TestLongNames(t *testing.T) {
	s := hosted(t, t.TempDir())
	long := strings.Repeat("g", 63)
	if _, err := s.Create(t.Context(), long, ""); err != nil {
		t.Fatal(err)
	}
	mint, err := jetstream.NewMint(s.Secret(long))
	if err != nil {
		t.Fatal(err)
	}
	l, _ := login(t, s, long, func(user string) (string, error) { return mint.Replica(long, long, "AAAAAAAAAAE", user) })
	for u, err := range l.Follow(t.Context(), "group/"+long, bus.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		if u.CaughtUp {
			return
		}
	}
}
