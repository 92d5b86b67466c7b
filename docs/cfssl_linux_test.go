// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/keyturn/keyturn/internal/cfsslserver"
)

// TestCFSSLGuide follows cfssl.md word by word, each block on its host, with CFSSL's
// own programs.
func TestCFSSLGuide(t *testing.T) {
	g := newGuide(t, "ops", "lb1", "ca")
	for _, program := range []string{"cfssl", "cfssljson"} {
		if err := os.Symlink(filepath.Join(cfsslserver.Programs(t), program), filepath.Join(g.dir, "bin", program)); err != nil {
			t.Fatal(err)
		}
	}
	serials := g.follow("cfssl.md")
	if len(serials) != 2 || serials[0] == serials[1] {
		t.Errorf("the serials are %q: want one, and another after it was renewed", serials)
	}
}
