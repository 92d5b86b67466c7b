// SPDX-License-Identifier: Apache-2.0

package plural_test

import (
	"testing"

	"github.com/keyturn/keyturn/internal/plural"
)

func TestOf(t *testing.T) {
	for n, want := range map[int64]string{0: "0 certificates", 1: "1 certificate", 2: "2 certificates", 11: "11 certificates"} {
		if got := plural.Of(n, "certificate"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
