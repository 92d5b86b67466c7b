// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os/exec"
	"testing"
)

// TestLocalCAGuide follows localca.md word by word, each block on its host.
func TestLocalCAGuide(t *testing.T) {
	needCurl(t)
	g := newGuide(t, "ops", "web")
	serials := g.follow("localca.md")
	if len(serials) != 2 || serials[0] == serials[1] {
		t.Errorf("the serials are %q: want that of the first certificate, and of the one after it", serials)
	}
}

func needCurl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is not installed; run: apt-get install curl")
	}
}
