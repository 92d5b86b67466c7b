// SPDX-License-Identifier: Apache-2.0

// Package names reads the names that certificates are for, as people and
// programs write them.
//
// Everything inside Keyturn works with normal forms: [Normalize] is called
// where a name comes in, and nowhere else. A normal form is one of
//
//   - a DNS name in lower-case A-labels (RFC 5890 section 2.3.2.1) without a
//     trailing dot: "www.example.com", "xn--bcher-kva.example", "localhost";
//   - a wildcard, "*." and a DNS name of at least two labels: "*.example.com";
//   - an IP address as [net/netip] prints it: "10.0.0.1", "2001:db8::1".
//
// Two names are the same if their normal forms are equal. [NormalizeList] does
// a certificate's whole list, [Plan] is the rule by which the command line makes
// a list from one domain.
//
// What is refused is refused with an [Error] that says what is wrong with which
// name. No function here asks the DNS or keeps state.
package names

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Bounds of a name and of a list.
const (
	// MaxNames is the most names in one list: what public CAs put into one
	// certificate.
	MaxNames = 100

	maxName  = 253     // RFC 1035 section 2.3.4: 255 octets, as text without the trailing dot
	maxLabel = 63      // RFC 1035 section 2.3.4
	maxInput = 4 << 10 // a name that is longer before its conversion does not fit after it
)

// An Error says what is wrong with a name.
type Error struct {
	Name    string // as it was given
	Problem string // what is wrong with it, and where it helps, what to write instead
}

// Error quotes the name, cut after 80 characters.
func (e *Error) Error() string {
	shown := e.Name
	if len(shown) > 80 {
		shown = strings.ToValidUTF8(shown[:80], "") + "..."
	}
	return fmt.Sprintf("bad name %q: %s", shown, e.Problem)
}

// profile is UTS #46 as browsers apply it to what users type: mapped,
// nontransitional, without CheckHyphens (real host names such as
// "r3---sn-apo3" need that), with the bidi rule.
var profile = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.CheckHyphens(false), idna.BidiRule())

// Normalize returns the normal form of a name. International names are
// converted (UTS #46), letters become lower-case, one trailing dot goes, an
// IPv4-mapped IPv6 address becomes the IPv4 address. The result is unchanged
// by another Normalize.
//
// Refused with an *Error are: empty and overlong names and labels; characters
// other than letters, digits and hyphens, underscores among them; a "*" other
// than as the whole left-most label before two or more labels; ports, URLs,
// e-mail addresses, address ranges and zones, brackets; and what looks like an
// IPv4 address without being one.
func Normalize(name string) (string, error) {
	normal, problem := normalize(name)
	if problem != "" {
		return "", &Error{name, problem}
	}
	return normal, nil
}

func normalize(name string) (normal, problem string) {
	if name == "" {
		return "", "it is empty"
	}
	if len(name) > maxInput {
		return "", tooLong
	}
	if !utf8.ValidString(name) {
		return "", "it has characters that are not UTF-8 text"
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.Zone() != "" {
			return "", "an address with a zone means something on one machine only; leave out the % and what follows"
		}
		return ip.Unmap().String(), ""
	}
	if problem := foreign(name); problem != "" {
		return "", problem
	}
	if strings.Contains(name, "*") {
		return wildcard(name)
	}
	return dnsName(name)
}

// foreign recognises what is a name's neighbour: not one, but with one in it.
func foreign(name string) string {
	switch {
	case strings.Contains(name, "://"):
		return "it is a URL; give the host name alone"
	case strings.Contains(name, "/"):
		return "it has a slash; give a host name or one address, not a path or an address range"
	case strings.Contains(name, "@"):
		return "it is an e-mail address; give the host name alone"
	case strings.ContainsAny(name, "[]"):
		return "it has brackets; give an IPv6 address without them and without a port"
	case strings.ContainsAny(name, " \t\r\n"):
		return "it has white space; separate names by commas"
	case strings.Contains(name, ","):
		return "it has a comma; this is a list, not one name"
	case strings.Contains(name, "_"):
		return "it has an underscore, which host names and so certificates cannot have"
	case strings.Contains(name, ":"):
		return colon(name)
	}
	return ""
}

func colon(name string) string {
	host, port, _ := strings.Cut(name, ":")
	if host != "" && port != "" && strings.Trim(port, "0123456789") == "" {
		return fmt.Sprintf("it has a port; certificates are for all ports: give %q", host)
	}
	return "it has a colon, but it is not an IPv6 address"
}

func wildcard(name string) (normal, problem string) {
	domain, ok := strings.CutPrefix(name, "*.")
	if !ok || domain == "" || strings.Contains(domain, "*") {
		return "", misplaced(name)
	}
	if _, err := netip.ParseAddr(domain); err == nil || numeric(domain) {
		return "", "there are no wildcards for IP addresses"
	}
	domain, problem = dnsName(domain)
	switch {
	case problem != "":
		return "", problem
	case !strings.Contains(domain, "."):
		return "", "a wildcard needs at least two labels after it, as in *.example.com"
	case len(domain)+len("*.") > maxName:
		return "", tooLong
	}
	return "*." + domain, ""
}

func misplaced(name string) string {
	label, rest, _ := strings.Cut(name, ".")
	switch {
	case name == "*" || name == "*.":
		return "a wildcard alone would be for every name; give *.DOMAIN"
	case numeric(name):
		return "there are no wildcards for IP addresses"
	case strings.Contains(rest, "*"):
		return "a wildcard can only be the first label, once, as in *.example.com"
	}
	return fmt.Sprintf("a wildcard stands for a whole label: give * instead of %q", label)
}

var tooLong = fmt.Sprintf("it is longer than %d characters", maxName)

func dnsName(name string) (normal, problem string) {
	ascii, err := profile.ToASCII(name)
	if err != nil {
		return "", "it has characters that a DNS name cannot have, or has them where it cannot (" + err.Error() + ")"
	}
	ascii = strings.TrimSuffix(ascii, ".")
	if len(ascii) > maxName {
		return "", tooLong
	}
	for label := range strings.SplitSeq(ascii, ".") {
		if problem := badLabel(label); problem != "" {
			return "", problem
		}
	}
	if numeric(ascii) {
		return "", "it looks like an IPv4 address, but is not one: that is four numbers from 0 to 255 without leading zeros"
	}
	return ascii, ""
}

func badLabel(label string) string {
	switch {
	case label == "":
		return "it has an empty label: a dot at its start, or two dots in a row"
	case len(label) > maxLabel:
		return fmt.Sprintf("the label %.20s... is longer than %d characters", label, maxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return fmt.Sprintf("the label %s starts or ends with a hyphen", label)
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Sprintf("it has the character %q; letters, digits, hyphens and dots are allowed", c)
		}
	}
	return ""
}

// numeric reports whether the last label is a number, as in no host name: the
// WHATWG URL standard's "ends in a number" checker, which browsers use to tell
// addresses from names, and RFC 1123 section 2.1.
func numeric(name string) bool {
	name = strings.TrimSuffix(name, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	if last == "" {
		return false
	}
	if strings.Trim(last, "0123456789") == "" {
		return true
	}
	hex, ok := strings.CutPrefix(strings.ToLower(last), "0x")
	return ok && strings.Trim(hex, "0123456789abcdef") == ""
}

// NormalizeList returns the normal forms of 1 to MaxNames names, sorted and
// without repetitions. All bad names are reported at once: the error joins an
// *Error for each.
func NormalizeList(list []string) ([]string, error) {
	if len(list) == 0 {
		return nil, errors.New("no names are given")
	}
	if len(list) > MaxNames {
		return nil, fmt.Errorf("%d names are given; one certificate can have %d", len(list), MaxNames)
	}
	var normal []string
	var errs []error
	for _, name := range list {
		n, err := Normalize(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		normal = append(normal, n)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.Sort(normal)
	return slices.Compact(normal), nil
}
