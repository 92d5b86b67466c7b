// SPDX-License-Identifier: Apache-2.0

package solver_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver"
)

func TestCheckToken(t *testing.T) {
	good := strings.Repeat("Az09_-", 5)
	for token, ok := range map[string]bool{
		good: true, good[:22]: true, strings.Repeat("a", 128): true,
		"": false, good[:21]: false, strings.Repeat("a", 129): false,
		good + "/": false, "../../../../../../etc/passwd": false, good + ".": false, good + "\x00": false,
		good + "%2f": false, good + "ä": false, good + "=": false, good + "\n": false, `..\..\..\..\..\..\..\x`: false,
	} {
		if err := solver.CheckToken(token); (err == nil) != ok {
			t.Errorf("%q: %v", token, err)
		}
	}
}
