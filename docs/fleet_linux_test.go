// SPDX-License-Identifier: Apache-2.0

package docs_test

import "testing"

// TestFleetGuide follows fleet.md word by word, each block on its host.
func TestFleetGuide(t *testing.T) {
	g := newGuide(t, "ops", "lb1", "lb2")
	serials := g.follow("fleet.md")
	if len(serials) != 3 || serials[0] != serials[1] || serials[0] == serials[2] {
		t.Errorf("the serials are %q: want that of both hosts, and a new one", serials)
	}
}
