// SPDX-License-Identifier: Apache-2.0

package names

import (
	"fmt"
	"net/netip"
	"strings"
)

// A UsageError says that a domain and the flags beside it do not make a list of
// names, and which flag is meant.
type UsageError struct {
	Domain  string // as it was given
	Problem string
}

// Error says what to write instead.
func (e *UsageError) Error() string { return e.Problem }

// Plan returns the names that the command line asks for by one domain D:
//
//	(no flag)     www.D and D
//	--wildcard    *.D and D
//	--subdomain   D alone
//
// in this order. D is normalised first; a bad name is an *Error. A *UsageError
// is returned for both flags together, for an IP address, for a wildcard, for
// a D that starts with "www." without --subdomain, and for a D of one label
// without it.
func Plan(domain string, wildcard, subdomain bool) ([]string, error) {
	usage := func(format string, a ...any) ([]string, error) {
		return nil, &UsageError{domain, fmt.Sprintf(format, a...)}
	}
	d, err := Normalize(domain)
	if err != nil {
		return nil, err
	}
	base, www := strings.CutPrefix(d, "www.")
	star, starred := strings.CutPrefix(d, "*.")
	_, notIP := netip.ParseAddr(d)
	switch {
	case notIP == nil:
		return usage("%s is an IP address: give it as --names %s", d, d)
	case starred:
		return usage("for %s and %s give --wildcard %s; for %s alone --names '%s'", d, star, star, d, d)
	case wildcard && subdomain:
		return usage("--wildcard is for *.%[1]s and %[1]s, --subdomain for %[1]s alone: give one of them", d)
	case subdomain:
		return []string{d}, nil
	case !strings.Contains(d, "."):
		return usage("%s has one label: give --subdomain for a certificate for %s alone", d, d)
	case www && !strings.Contains(base, "."):
		return usage("%s starts with www. already: give --subdomain for %s alone", d, d)
	case www && wildcard:
		return usage("%s starts with www. already: give --wildcard with %s for *.%s and %s, or --subdomain for %s alone", d, base, base, base, d)
	case www:
		return usage("%s starts with www. already: give %s for both, or --subdomain for %s alone", d, base, d)
	}
	first := "www." + d
	if wildcard {
		first = "*." + d
	}
	if first, err = Normalize(first); err != nil {
		return nil, err
	}
	return []string{first, d}, nil
}
