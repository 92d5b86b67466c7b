// SPDX-License-Identifier: Apache-2.0

package printable_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/printable"
)

func TestLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "",
		"bücher.example – 例え \U0001f511": "bücher.example – 例え \U0001f511",
		"one\ntwo\r\tthree\x00":          "one two  three ",
		"\x1b]0;title\a":                 " ]0;title ",
		"\u009b2J\u0085\u007f":           " 2J  ",
		"a\u2028b\u2029c\u00a0d":         "a b c d",
		"a\u202eb\u2066c\u200fd\ufeff":   "a b c d ",
		"\xff\xfea\x9bb\xc3":             "?a?b?",
		"\ufffd":                         "\ufffd",
	} {
		if got := printable.Line(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestStart(t *testing.T) {
	for text, want := range map[string]string{
		"1234":   "1234",
		"12345":  "1234 …",
		"12\n4":  "12 4",
		"12\n45": "12 4 …",
		"123é":   "123 …",
	} {
		if got := printable.Start(text, 4); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("a\x1b\xff\u202e")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable.Line(s)
		if len(got) > len(s) || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b\u2028\u202e") || printable.Line(got) != got {
			t.Errorf("%q: %q", s, got)
		}
	})
}
