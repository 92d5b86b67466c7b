// SPDX-License-Identifier: Apache-2.0

package solvers

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
)

const page = "../../docs/dns.md"

var (
	section = regexp.MustCompile(`(?m)^### ([a-z0-9-]+)\n`)
	row     = regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| *([a-z, ]*?) *\\| ")
	example = regexp.MustCompile("(?s)```yaml\n(.*?)```")
)

// TestPage holds that docs/dns.md has each type with its settings, in the order
// of the table, and says which are required and secret.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	heads := section.FindAllStringSubmatchIndex(text, -1)
	var shown []string
	for i, h := range heads {
		name, end := text[h[2]:h[3]], len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		shown = append(shown, name)
		var got, want []string
		for _, m := range row.FindAllStringSubmatch(text[h[1]:end], -1) {
			got = append(got, m[1]+" "+m[2])
		}
		for _, s := range config.SolverTypes[name].Settings {
			var is []string
			if s.Required {
				is = append(is, "required")
			}
			if s.Secret {
				is = append(is, "secret")
			}
			want = append(want, s.Name+" "+strings.Join(is, ", "))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: the page has %q, the table %q", name, got, want)
		}
	}
	for name := range config.SolverTypes {
		if !slices.Contains(shown, name) {
			t.Errorf("%s is not on the page", name)
		}
	}
	if len(shown) != len(config.SolverTypes) {
		t.Errorf("the page has %v", shown)
	}
}

// TestExample holds that the page's example is a configuration whose solvers can
// be made.
func TestExample(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	m := example.FindSubmatch(b)
	if m == nil {
		t.Fatal("the page has no example")
	}
	shared, err := config.ParseShared(m[1])
	if err != nil {
		t.Fatal(err)
	}
	if len(shared.Solvers) < 2 {
		t.Errorf("it has %d solvers", len(shared.Solvers))
	}
	for name, c := range shared.Solvers {
		if _, _, err := New(name, c, shared.Resolvers); err != nil {
			t.Error(err)
		}
	}
}
