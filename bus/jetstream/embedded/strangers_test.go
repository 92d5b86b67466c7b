// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus/jetstream"
)

// TestWhoGetsIn: those who may do nothing at all are not let in.
func TestWhoGetsIn(t *testing.T) {
	f := startFleet(t)
	foreign, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	foreignPublic, err := foreign.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := jetstream.MintSecret(foreign, foreignPublic)
	if err != nil {
		t.Fatal(err)
	}
	foreignMint, err := jetstream.NewMint(secret)
	if err != nil {
		t.Fatal(err)
	}
	token := func(name string, by func(string) (string, error)) func() (string, []byte) {
		return func() (string, []byte) { return f.grant(t, name, by) }
	}
	for who, c := range map[string]struct {
		credentials func() (string, []byte)
		in          bool
	}{
		"a manager":         {token("manager", f.manager("red")), true},
		"a replica":         {token("replica", f.replica("web", web1)), true},
		"a token":           {token("token", f.join(time.Minute)), true},
		"an expired token":  {token("late", f.join(-time.Minute)), false},
		"nobody":            {func() (string, []byte) { return "", nil }, false},
		"a foreign account": {token("foreign", func(user string) (string, error) { return foreignMint.Manager("red", "host", user) }), false},
		"a foreign key for the account": {token("forger", func(user string) (string, error) {
			claims := jwt.NewUserClaims(user)
			account := strings.Fields(string(f.server.Secret("default")))[1]
			claims.IssuerAccount = account
			return claims.Encode(foreign)
		}), false},
		"a revoked replica": {func() (string, []byte) {
			text, seed := f.grant(t, "revoked", f.replica("web", web1))
			if err := f.server.Revoke("default", []string{f.users["revoked"]}); err != nil {
				t.Fatal(err)
			}
			return text, seed
		}, false},
		"another's credentials": {func() (string, []byte) {
			text, _ := f.grant(t, "owner", f.replica("web", web1))
			_, seed := f.grant(t, "thief", f.replica("web", web2))
			return text, seed
		}, false},
	} {
		text, seed := c.credentials()
		_, err := dialWire(t, f.addr, text, seed)
		if (err == nil) != c.in {
			t.Errorf("%s: %v; gets in: %t", who, err, c.in)
		}
	}
}
