// SPDX-License-Identifier: Apache-2.0

// Package printable makes text that came from elsewhere, such as a CA, a DNS service
// or a replica, fit for a terminal and a log: it cannot steer them, hide what stands
// beside it, or write lines of its own.
package printable

import (
	"strings"
	"unicode"
)

// Line returns s as one line: what does not print becomes a space, control characters,
// line separators and what turns the direction of text among them, and what is not
// UTF-8 a question mark. It is never longer than s.
func Line(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Start is Line for the first bytes of s, at most as many as given, and " …" where
// more followed.
func Start(s string, most int) string {
	if len(s) <= most {
		return Line(s)
	}
	return Line(strings.ToValidUTF8(s[:most], "")) + " …"
}
