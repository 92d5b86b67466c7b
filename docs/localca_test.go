// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
)

var yamlBlock = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// TestLocalCASettings holds that localca.md has every setting of the built-in CA, and
// that what it shows is one.
func TestLocalCASettings(t *testing.T) {
	text, err := os.ReadFile("localca.md")
	if err != nil {
		t.Fatal(err)
	}
	explained(t, "localca.md", reflect.TypeFor[config.LocalCA]())
	blocks := yamlBlock.FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("there are no settings")
	}
	for _, b := range blocks {
		if _, err := config.ParseShared(b[1]); err != nil {
			t.Error(err)
		}
	}
}

// explained holds that a table of the page has every key of an issuer's settings.
func explained(t *testing.T, page string, settings reflect.Type) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for field := range settings.Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if !regexp.MustCompile("(?m)^\\|[^|]*`" + key + "`").Match(text) {
			t.Errorf("%s does not explain %s", page, key)
		}
	}
}
