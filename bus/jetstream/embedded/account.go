// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/event"
	"github.com/keyturn/keyturn/internal/durable"
)

// An account is a NATS account: what is in it can neither see nor reach what is
// in another. Its key names the signing key, which alone signs users: that can be
// replaced, and known to managers elsewhere, without the account being another.
type account struct {
	name        string
	key         nkeys.KeyPair
	signing     nkeys.KeyPair
	secret      []byte
	revokedFile string

	mu      sync.Mutex
	revoked []string // guarded by mu; sorted
}

// mainAccount is the name of the account of those tenants that have none of
// their own.
const mainAccount = "KEYTURN"

// loadAccounts loads the main account, and those of the tenants.
func loadAccounts(dir string, tenants []string) (map[string]*account, error) {
	first, err := loadAccount(dir, mainAccount)
	if err != nil {
		return nil, err
	}
	accounts := map[string]*account{"": first}
	for _, t := range tenants {
		if err := event.CheckName(t); err != nil {
			return nil, fmt.Errorf("the tenant: %w", err)
		}
		own := filepath.Join(dir, "tenants", t)
		if err := durable.MkdirAll(own); err != nil {
			return nil, err
		}
		if accounts[t], err = loadAccount(own, mainAccount+"_"+t); err != nil {
			return nil, err
		}
	}
	return accounts, nil
}

func loadAccount(dir, name string) (a *account, err error) {
	a = &account{name: name, revokedFile: filepath.Join(dir, revokedFile)}
	if a.key, err = loadKey(filepath.Join(dir, "account.nk"), nkeys.CreateAccount); err != nil {
		return nil, err
	}
	if a.signing, err = loadKey(filepath.Join(dir, "signing.nk"), nkeys.CreateAccount); err != nil {
		return nil, err
	}
	if a.revoked, err = readRevoked(a.revokedFile); err != nil {
		return nil, err
	}
	public, err := a.key.PublicKey()
	if err != nil {
		return nil, err
	}
	a.secret, err = jetstream.MintSecret(a.signing, public)
	return a, err
}

// claims are those of the account, in which these users are revoked.
func (a *account) claims(revoked []string) (*jwt.AccountClaims, error) {
	public, err := a.key.PublicKey()
	if err != nil {
		return nil, err
	}
	signing, err := a.signing.PublicKey()
	if err != nil {
		return nil, err
	}
	c := jetstream.AccountClaims(public, a.name, signing)
	for _, user := range revoked {
		if !nkeys.IsValidPublicUserKey(user) {
			return nil, fmt.Errorf("%q is not the public key of a NATS user", user)
		}
		c.Revoke(user)
	}
	return c, nil
}

// trust makes the server know the account.
func (a *account) trust(k keys, to server.AccountResolver) error {
	claims, err := a.claims(a.revoked)
	if err != nil {
		return err
	}
	_, err = k.store(to, claims)
	return err
}

// revoke takes from these users what they were granted, beside those from whom it
// was taken before.
func (a *account) revoke(k keys, s *server.Server, users []string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := slices.Concat(a.revoked, users)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) == len(a.revoked) {
		return nil
	}
	claims, err := a.claims(all)
	if err != nil {
		return err
	}
	// What the server does not take is not written: it would not start with it.
	if claims, err = k.store(s.AccountResolver(), claims); err != nil {
		return fmt.Errorf("with %d users revoked in all: %w", len(all), err)
	}
	if err := durable.WriteFile(a.revokedFile, []byte(strings.Join(all, "\n")+"\n"), durable.PrivateFile); err != nil {
		return err
	}
	running, err := s.LookupAccount(claims.Subject)
	if err != nil {
		return err
	}
	s.UpdateAccountClaims(running, claims)
	a.revoked = all
	return nil
}
