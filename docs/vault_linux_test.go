// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/vaultserver"
)

// TestVaultGuide follows vault.md word by word, each block on its host, with Vault's
// own server and command.
func TestVaultGuide(t *testing.T) {
	g := newGuide(t, "ops", "lb1", "vault")
	if err := os.Symlink(vaultserver.Program(t), filepath.Join(g.dir, "bin", "vault")); err != nil {
		t.Fatal(err)
	}
	serials := g.follow("vault.md")
	if len(serials) != 2 || serials[0] == serials[1] {
		t.Errorf("the serials are %q: want one, and a new one after it was revoked", serials)
	}
}
