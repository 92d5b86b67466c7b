// SPDX-License-Identifier: Apache-2.0

package jetstream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatWasSaidIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m memory
		if m.before("a") || !m.before("a") || m.before("b") {
			t.Error("a text is told by whether it was said")
		}
		time.Sleep(forget)
		if m.before("a") {
			t.Error("after a minute it is said again")
		}
		for i := range 10 * maxSaid {
			m.before(fmt.Sprint(i))
		}
		if len(m.said) > maxSaid {
			t.Errorf("%d texts are remembered", len(m.said))
		}
	})
}
