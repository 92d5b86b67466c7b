// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
)

// TestPlainCASettings holds that the pages of CAs that are servers of their own have
// every setting, and every problem that their package tells apart.
func TestPlainCASettings(t *testing.T) {
	for page, c := range map[string]struct {
		settings reflect.Type
		problems string // where they are
	}{
		"vault.md":  {reflect.TypeFor[config.Vault](), "../issuer/vault/explain.go"},
		"cfssl.md":  {reflect.TypeFor[config.CFSSL](), "../issuer/cfssl/explain.go"},
		"awspca.md": {reflect.TypeFor[config.AWSPCA](), "../issuer/acmpca/explain.go"},
	} {
		explained(t, page, c.settings)
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		problems := firstConstants(t, c.problems)
		if len(problems) < 10 {
			t.Errorf("%s has %d types of problems", c.problems, len(problems))
		}
		for _, p := range problems {
			if !strings.Contains(string(text), "`"+p+"`") {
				t.Errorf("%s does not explain %s", page, p)
			}
		}
	}
}

// firstConstants returns the texts of a file's first block of constants.
func firstConstants(t *testing.T, path string) (texts []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		block, ok := d.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			continue
		}
		for _, spec := range block.Specs {
			for _, v := range spec.(*ast.ValueSpec).Values {
				text, err := strconv.Unquote(v.(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, text)
			}
		}
		return texts
	}
	return nil
}
