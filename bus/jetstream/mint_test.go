// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus/jetstream"
)

// newMintSecret returns what a mint of a new account is made of.
func newMintSecret(t *testing.T) []byte {
	t.Helper()
	account, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	signing, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	public, err := account.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := jetstream.MintSecret(signing, public)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func newMint(t *testing.T) *jetstream.Mint {
	t.Helper()
	m, err := jetstream.NewMint(newMintSecret(t))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestNewMintRefuses(t *testing.T) {
	secret := newMintSecret(t)
	for what, s := range map[string][]byte{
		"nothing":           nil,
		"half of it":        secret[:len(secret)/2],
		"a part of the end": secret[:len(secret)-1],
		"a public key":      []byte("A A"),
	} {
		if _, err := jetstream.NewMint(s); err == nil {
			t.Errorf("%s made a mint", what)
		} else if strings.Contains(err.Error(), string(secret[:20])) {
			t.Errorf("%s: the error tells the secret: %v", what, err)
		}
	}
}

// TestMintRefuses what would be a wildcard, or more, in a subject.
func TestMintRefuses(t *testing.T) {
	m := newMint(t)
	const id = "AAAAAAAAAAE"
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	user, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "*", ">", "web.>", "web.x", "a b", "Web"} {
		for what, make := range map[string]func() (string, error){
			"replica's tenant": func() (string, error) { return m.Replica(bad, "web", id, user) },
			"replica's group":  func() (string, error) { return m.Replica("red", bad, id, user) },
			"replica's id":     func() (string, error) { return m.Replica("red", "web", bad, user) },
			"replica's user":   func() (string, error) { return m.Replica("red", "web", id, bad) },
			"token's group":    func() (string, error) { return m.Join("red", bad, id, user, time.Now()) },
			"token's id":       func() (string, error) { return m.Join("red", "web", bad, user, time.Now()) },
			"manager's tenant": func() (string, error) { return m.Manager(bad, "host", user) },
			"manager's user":   func() (string, error) { return m.Manager("red", "host", bad) },
		} {
			if _, err := make(); err == nil {
				t.Errorf("%q passed as a %s", bad, what)
			}
		}
	}
	grant, err := m.Join("red", "web", id, user, time.Unix(1<<31, 0))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := jwt.DecodeUserClaims(grant)
	if err != nil || claims.Expires != 1<<31 || claims.Subject != user {
		t.Errorf("%+v, %v", claims, err)
	}
	if claims.Pub.Allow == nil || claims.Sub.Allow == nil || len(claims.Pub.Deny)+len(claims.Sub.Deny) > 0 {
		t.Errorf("rights by exception: %+v", claims.Permissions)
	}
}
