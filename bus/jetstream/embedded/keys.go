// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/keyturn/keyturn/internal/durable"
)

// keys are what the server's trust hangs on. The operator's signs the accounts,
// the account's names the signing key, which alone signs users: it can be
// replaced, and known to managers elsewhere, without the account being another.
type keys struct{ operator, account, signing, system nkeys.KeyPair }

func loadKeys(dir string) (k keys, err error) {
	for name, to := range map[string]struct {
		key  *nkeys.KeyPair
		make func() (nkeys.KeyPair, error)
	}{
		"operator.nk": {&k.operator, nkeys.CreateOperator},
		"account.nk":  {&k.account, nkeys.CreateAccount},
		"signing.nk":  {&k.signing, nkeys.CreateAccount},
		"system.nk":   {&k.system, nkeys.CreateAccount},
	} {
		if *to.key, err = loadKey(filepath.Join(dir, name), to.make); err != nil {
			return k, err
		}
	}
	return k, nil
}

func loadKey(path string, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, error) {
	seed, err := durable.ReadPrivate(path, 1024)
	if errors.Is(err, fs.ErrNotExist) {
		key, err := create()
		if err != nil {
			return nil, err
		}
		seed, err := key.Seed()
		if err != nil {
			return nil, err
		}
		return key, durable.CreateFile(path, seed, durable.PrivateFile)
	}
	if err != nil {
		return nil, err
	}
	key, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return key, nil
}

// trust makes the server trust the operator and know its two accounts.
func (k keys) trust(o *server.Options, revoked []string) error {
	operatorPub, err := k.operator.PublicKey()
	if err != nil {
		return err
	}
	systemPub, err := k.system.PublicKey()
	if err != nil {
		return err
	}
	operator := jwt.NewOperatorClaims(operatorPub)
	operator.Name = "keyturn"
	operator.SystemAccount = systemPub
	o.TrustedOperators = []*jwt.OperatorClaims{operator}
	o.SystemAccount = systemPub
	o.AccountResolver = &server.MemAccResolver{}
	system := jwt.NewAccountClaims(systemPub)
	system.Name = "SYS"
	if _, err := k.store(o.AccountResolver, system); err != nil {
		return err
	}
	account, err := k.claims(revoked)
	if err != nil {
		return err
	}
	_, err = k.store(o.AccountResolver, account)
	return err
}

// claims are those of the account, in which these users are revoked.
func (k keys) claims(revoked []string) (*jwt.AccountClaims, error) {
	public, err := k.account.PublicKey()
	if err != nil {
		return nil, err
	}
	signing, err := k.signing.PublicKey()
	if err != nil {
		return nil, err
	}
	c := jwt.NewAccountClaims(public)
	c.Name = "KEYTURN"
	c.SigningKeys.Add(signing)
	c.Limits.JetStreamLimits = jwt.JetStreamLimits{
		MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
		MaxAckPending: jwt.NoLimit,
	}
	for _, user := range revoked {
		if !nkeys.IsValidPublicUserKey(user) {
			return nil, fmt.Errorf("%q is not the public key of a NATS user", user)
		}
		c.Revoke(user)
	}
	return c, nil
}

// store makes the resolver answer with the account's claims. It returns them as
// the server reads them.
func (k keys) store(to server.AccountResolver, c *jwt.AccountClaims) (*jwt.AccountClaims, error) {
	token, err := c.Encode(k.operator)
	if err != nil {
		return nil, err
	}
	if err := to.Store(c.Subject, token); err != nil {
		return nil, err
	}
	return jwt.DecodeAccountClaims(token)
}
