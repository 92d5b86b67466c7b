// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"testing"
)

// However often an id is loaded without ever being opened, only a few generations stay.
func TestUnopenedGenerationsAreForgotten(t *testing.T) {
	var store Store
	open := func() (tls.Certificate, error) { return tls.Certificate{}, nil }
	for range 10 {
		if err := store.Load("id", Lazy{Open: open}); err != nil {
			t.Fatal(err)
		}
		n := 0
		for g := store.current("id"); g != nil; g = g.lazy.prev {
			n++
		}
		if n > 3 {
			t.Fatalf("%d generations are held", n)
		}
	}
}
