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

// keys are what the server's trust hangs on: the operator's sign the accounts.
type keys struct{ operator, system nkeys.KeyPair }

func loadKeys(dir string) (k keys, err error) {
	if k.operator, err = loadKey(filepath.Join(dir, "operator.nk"), nkeys.CreateOperator); err != nil {
		return k, err
	}
	k.system, err = loadKey(filepath.Join(dir, "system.nk"), nkeys.CreateAccount)
	return k, err
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
	durable.Settle(path) // what hangs on it is given out
	key, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return key, nil
}

// trust makes the server trust the operator, and know the system's account.
func (k keys) trust(o *server.Options) error {
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
	_, err = k.store(o.AccountResolver, system)
	return err
}

// store makes the resolver answer with an account's claims. It returns them as
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
