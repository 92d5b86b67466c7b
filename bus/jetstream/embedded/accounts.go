// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/bus/jetstream"
)

// Accounts returns what NATS servers of one's own have to know so that the users of
// the embedded server with this directory log in there with the credentials that they
// have. It makes nothing. Tenants with accounts of their own are an error: they move
// by themselves.
func Accounts(dir string) (*jetstream.Accounts, error) {
	for _, name := range []string{"operator.nk", "system.nk", "account.nk", "signing.nk"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("embedded bus: the keys of its accounts: %w", err)
		}
	}
	if tenants, err := os.ReadDir(filepath.Join(dir, "tenants")); err == nil && len(tenants) > 0 {
		return nil, fmt.Errorf("embedded bus: %s has tenants with accounts of their own, such as %s: one server's accounts cannot be moved together", dir, tenants[0].Name())
	}
	keys, err := loadKeys(dir)
	if err != nil {
		return nil, err
	}
	a, err := loadAccount(dir, mainAccount)
	if err != nil {
		return nil, err
	}
	return jetstream.AccountsOf(keys.operator, keys.system, a.key, a.signing, a.revoked), nil
}
