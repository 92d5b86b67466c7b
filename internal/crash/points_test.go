// SPDX-License-Identifier: Apache-2.0

package crash_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/crash"
)

// TestListed holds that each point of the code is listed, has a name of its own, and
// is passed in one place.
func TestListed(t *testing.T) {
	values := constants(t)
	listed := crash.Code()
	if len(crash.All()) < 120 {
		t.Errorf("there are %d points", len(crash.All()))
	}
	all := slices.Clone(crash.All())
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != len(crash.All()) {
		t.Errorf("%d names are there twice", len(crash.All())-n)
	}
	passed := passed(t)
	for name, value := range values {
		if !slices.Contains(listed, value) {
			t.Errorf("%s is not listed", name)
		}
		if n := len(passed[name]); n != 1 {
			t.Errorf("%s is passed in %d places: %v", name, n, passed[name])
		}
	}
	for name, places := range passed {
		if values[name] == "" {
			t.Errorf("%v: %s is no point", places, name)
		}
	}
	if len(values) != len(listed) {
		t.Errorf("%d points are listed, and %d there", len(listed), len(values))
	}
}

// constants returns the points that points.go names.
func constants(t *testing.T) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "points.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]string)
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, name := range spec.Names {
			literal, ok := spec.Values[i].(*ast.BasicLit)
			if !ok {
				t.Fatalf("%s is no text", name)
			}
			if values[name.Name], err = strconv.Unquote(literal.Value); err != nil {
				t.Fatal(err)
			}
		}
		return true
	})
	return values
}

// passed returns where the module passes points, by their constants.
func passed(t *testing.T) map[string][]string {
	t.Helper()
	places := make(map[string][]string)
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() && (e.Name() == "testdata" || e.Name() == "crash" || e.Name() == ".git" || e.Name() == "build") {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(text), "crash.Point(") {
			return err
		}
		set := token.NewFileSet()
		f, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || selected(call.Fun) != "Point" || len(call.Args) != 1 {
				return true
			}
			name := selected(call.Args[0])
			places[name] = append(places[name], set.Position(call.Pos()).String())
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return places
}

// selected returns the name in "crash.NAME", "" of anything else.
func selected(e ast.Expr) string {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	if x, ok := s.X.(*ast.Ident); !ok || x.Name != "crash" {
		return ""
	}
	return s.Sel.Name
}
