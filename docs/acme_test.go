// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
)

// TestACMESettings holds that acme.md has every setting of an issuer.
func TestACMESettings(t *testing.T) {
	text, err := os.ReadFile("acme.md")
	if err != nil {
		t.Fatal(err)
	}
	for field := range reflect.TypeFor[config.ACME]().Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !strings.Contains(string(text), "| `"+key+"` |") {
			t.Errorf("acme.md does not explain %s", key)
		}
	}
	for _, name := range config.Directories() {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("acme.md does not name %s", name)
		}
	}
}
