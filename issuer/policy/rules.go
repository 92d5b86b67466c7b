// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Rules say what a CA may sign. They do not change: all methods may be called
// at once. The nil Rules allow every name, and TLS servers and clients.
type Rules struct {
	names  Names
	ranges []netip.Prefix
	uris   []string // as normalURI returns them; with a "/" at the end, those below
	usages []x509.ExtKeyUsage
}

// usages are what a certificate can be for, by the names that people give it.
var usages = []struct {
	name  string
	usage x509.ExtKeyUsage
}{{"server", x509.ExtKeyUsageServerAuth}, {"client", x509.ExtKeyUsageClientAuth}}

// AllUsages returns what certificates are for where nothing says otherwise.
func AllUsages() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}

// NewRules makes rules of patterns and of usages, each "server" or "client";
// nil if there is neither.
//
// The DNS pattern "example.com" stands for that name, "*.example.com" for the
// names one label below it and the wildcard itself, ".example.com" for all
// below it, "." for all. A URI pattern is a whole URI, or ends in "/*" for those
// below. With any pattern, every name needs one that fits it; without, all names
// are allowed. Without usages both are.
func NewRules(n Names, uses []string) (*Rules, error) {
	switch count := n.count(); {
	case count == 0 && len(uses) == 0:
		return nil, nil
	case count > MaxNames:
		return nil, fmt.Errorf("%d patterns of names: at most %d are possible", count, MaxNames)
	}
	r := &Rules{names: n}
	for _, pattern := range n.DNS {
		if err := checkPattern(pattern); err != nil {
			return nil, err
		}
	}
	for _, pattern := range n.URI {
		uri, err := readURI(pattern)
		if err != nil {
			return nil, err
		}
		r.uris = append(r.uris, uri)
	}
	for _, use := range uses {
		u, err := ParseUsage(use)
		if err != nil {
			return nil, err
		}
		r.usages = append(r.usages, u)
	}
	var err error
	r.ranges, err = ranges(n.IP)
	return r, err
}

// ParseUsage reads "server" or "client".
func ParseUsage(s string) (x509.ExtKeyUsage, error) {
	for _, u := range usages {
		if s == u.name {
			return u.usage, nil
		}
	}
	return 0, fmt.Errorf("%.40q is not a usage: server and client are known", s)
}

// usageName is what ParseUsage reads.
func usageName(usage x509.ExtKeyUsage) string {
	for _, u := range usages {
		if u.usage == usage {
			return u.name
		}
	}
	return fmt.Sprintf("usage %d", int(usage))
}

func checkPattern(pattern string) error {
	if pattern == "." {
		return nil
	}
	domain, wildcard := strings.CutPrefix(pattern, "*.")
	if !wildcard {
		domain = strings.TrimPrefix(pattern, ".")
	}
	if err := checkDomain(domain); err != nil {
		return fmt.Errorf("%w: a pattern is example.com, *.example.com for the names one label below it, or .example.com for all below it", err)
	}
	return nil
}

func readURI(pattern string) (string, error) {
	base, below := strings.CutSuffix(pattern, "/*")
	u, err := url.Parse(base)
	if err == nil {
		if uri, ok := normalURI(u); ok && u.Scheme != "" && !strings.Contains(base, "*") {
			if below {
				uri += "/"
			}
			return uri, nil
		}
	}
	return "", fmt.Errorf("%.80q is not a URI with a host, and nothing else but \"/*\" at its end", pattern)
}

// Usages returns what certificates may be for.
func (r *Rules) Usages() []x509.ExtKeyUsage {
	if r == nil || len(r.usages) == 0 {
		return AllUsages()
	}
	return slices.Clone(r.usages)
}

// Permits returns an error unless the name is allowed.
func (r *Rules) Permits(text string) error {
	if r == nil || r.names.Empty() || r.fits(read(text)) {
		return nil
	}
	return fmt.Errorf("the CA's policy does not allow %.253q: it allows %s", text, r.names)
}

func (r *Rules) fits(n name) bool {
	switch n.kind {
	case kindIP:
		return slices.ContainsFunc(r.ranges, func(p netip.Prefix) bool { return p.Contains(n.ip) })
	case kindURI:
		return n.uri != "" && slices.ContainsFunc(r.uris, func(uri string) bool {
			return n.uri == uri || strings.HasSuffix(uri, "/") && strings.HasPrefix(n.uri, uri)
		})
	}
	return slices.ContainsFunc(r.names.DNS, func(pattern string) bool {
		if base, ok := strings.CutPrefix(pattern, "*."); ok {
			_, above, _ := strings.Cut(n.dns, ".")
			return above == base
		}
		return n.dns == pattern || pattern == "." || pattern[0] == '.' && strings.HasSuffix(n.dns, pattern)
	})
}

// PermitsUsage returns an error unless a certificate may be for that.
func (r *Rules) PermitsUsage(usage x509.ExtKeyUsage) error {
	if slices.Contains(r.Usages(), usage) {
		return nil
	}
	var allowed []string
	for _, u := range r.Usages() {
		allowed = append(allowed, usageName(u))
	}
	return fmt.Errorf("the CA's policy does not allow certificates for the usage %s: it allows %s", usageName(usage), strings.Join(allowed, ", "))
}
