// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyturn/keyturn/internal/plural"
)

// maxText is how many bytes of one string of a peer are shown.
const maxText = 200

// shown makes a string of a peer fit to be shown: at most maxText bytes of it, and what
// does not print, which is what a terminal could obey, escaped as in Go. A quotation
// mark and a backslash are escaped too, so that the result is not ambiguous.
func shown(s string) string {
	q := quote(s)
	return q[1 : len(q)-1]
}

// quote is shown in quotation marks.
func quote(s string) string {
	if len(s) <= maxText {
		return strconv.Quote(s)
	}
	end := maxText
	for end > maxText-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	q := strconv.Quote(s[:end])
	return q[:len(q)-1] + `…"`
}

func printable(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// some enumerates at most five of a list that may be of any length, quoted.
func some(list []string) string {
	const most = 5
	var quoted []string
	for _, s := range list[:min(len(list), most)] {
		quoted = append(quoted, quote(s))
	}
	text := strings.Join(quoted, ", ")
	if more := len(list) - most; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// title names a certificate in a sentence, quoted.
func title(c *x509.Certificate) string {
	names := namesOf(c, 1)
	switch {
	case c.Subject.CommonName != "":
		return quote(c.Subject.CommonName)
	case len(names) > 0:
		return quote(names[0])
	case len(c.RawSubject) > 0 && c.Subject.String() != "":
		return quote(c.Subject.String())
	}
	return "of serial " + serialOf(c)
}

// namesOf returns the first names of a certificate as they stand in it.
func namesOf(c *x509.Certificate, most int) []string {
	var names []string
	add := func(name string) bool {
		names = append(names, name)
		return len(names) < most
	}
	for _, n := range c.DNSNames {
		if !add(n) {
			return names
		}
	}
	for _, n := range c.IPAddresses {
		if !add(n.String()) {
			return names
		}
	}
	for _, n := range c.URIs {
		if !add(n.String()) {
			return names
		}
	}
	for _, n := range c.EmailAddresses {
		if !add(n) {
			return names
		}
	}
	return names
}

func countNames(c *x509.Certificate) int {
	return len(c.DNSNames) + len(c.IPAddresses) + len(c.URIs) + len(c.EmailAddresses)
}

// serialOf prints a serial number in hexadecimal, cut.
func serialOf(c *x509.Certificate) string {
	if c.SerialNumber == nil {
		return "none"
	}
	return shown(c.SerialNumber.Text(16))
}

// moment is a time of a certificate in UTC. Its offset can take it out of the years that
// RFC 3339, and so JSON, has; it is cut to them.
func moment(t time.Time) time.Time {
	t = t.UTC()
	if first := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC); t.Before(first) {
		return first
	}
	if last := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC); t.After(last) {
		return last
	}
	return t
}

func stamp(t time.Time) string { return moment(t).Format(time.RFC3339) }

// span prints a length of time as people say it, rounded down.
func span(d time.Duration) string {
	for _, unit := range []struct {
		d    time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}, {time.Second, "second"}} {
		if n := int64(d / unit.d); n >= 2 || n == 1 && unit.d < 24*time.Hour {
			return plural.Of(n, unit.name)
		}
	}
	return "less than a second"
}
