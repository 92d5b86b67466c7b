// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Constraints are the name constraints of a CA certificate (RFC 5280 section
// 4.2.1.10). They do not change: all methods may be called at once. The nil
// Constraints permit every name.
type Constraints struct {
	permitted, excluded side
}

// A side is what is permitted, or what is excluded.
type side struct {
	names  Names
	ranges []netip.Prefix
}

// NewConstraints makes constraints of patterns; nil if there is none.
//
// A DNS pattern is a domain: it stands for itself and all names below it. A URI
// pattern is the host of URIs: "example.com" for that host, ".example.com" for
// those below it. Where a kind of names has permitted patterns, one of them must
// fit; a kind that has none is not limited. What is excluded is so whatever is
// permitted. RFC 5280 means the host alone, and some clients those below it, too:
// so what is excluded is both, and what is permitted is the host alone.
func NewConstraints(permitted, excluded Names) (*Constraints, error) {
	switch n := permitted.count() + excluded.count(); {
	case n == 0:
		return nil, nil
	case n > MaxNames:
		return nil, fmt.Errorf("%d name constraints: at most %d are possible", n, MaxNames)
	}
	c := new(Constraints)
	for _, s := range []struct {
		of   string
		from Names
		to   *side
	}{{"permitted", permitted, &c.permitted}, {"excluded", excluded, &c.excluded}} {
		if err := s.to.read(s.from); err != nil {
			return nil, fmt.Errorf("the %s names: %w", s.of, err)
		}
	}
	return c, nil
}

func (s *side) read(from Names) (err error) {
	for _, domain := range from.DNS {
		if err := checkDomain(domain); err != nil {
			return fmt.Errorf("%w: a constraint is a domain, for itself and all below it", err)
		}
	}
	for _, host := range from.URI {
		if err := checkDomain(strings.TrimPrefix(host, ".")); err != nil {
			return fmt.Errorf("%w: a constraint of URIs is a host, or a dot and a domain for the hosts below it", err)
		}
	}
	s.ranges, err = ranges(from.IP)
	s.names = from
	return err
}

// ConstraintsOf returns those that stand in a CA's certificate; nil if there
// are none. The error says that it has some of a kind that is not known here.
func ConstraintsOf(cert *x509.Certificate) (*Constraints, error) {
	if len(cert.PermittedEmailAddresses)+len(cert.ExcludedEmailAddresses) > 0 || slices.ContainsFunc(cert.UnhandledCriticalExtensions, nameConstraints.Equal) {
		return nil, fmt.Errorf("the name constraints of %q are of a kind that is not known here", cert.Subject.CommonName)
	}
	permitted := Names{cert.PermittedDNSDomains, ranged(cert.PermittedIPRanges), cert.PermittedURIDomains}
	excluded := Names{cert.ExcludedDNSDomains, ranged(cert.ExcludedIPRanges), cert.ExcludedURIDomains}
	return NewConstraints(permitted, excluded)
}

// nameConstraints is the extension's object identifier.
var nameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}

func ranged(nets []*net.IPNet) (texts []string) {
	for _, n := range nets {
		texts = append(texts, n.String())
	}
	return texts
}

// Add puts the constraints into a template of a CA certificate, critical, as RFC
// 5280 wants them.
func (c *Constraints) Add(template *x509.Certificate) {
	if c == nil {
		return
	}
	template.PermittedDNSDomainsCritical = true // counts for all kinds
	template.PermittedDNSDomains, template.ExcludedDNSDomains = c.permitted.names.DNS, c.excluded.names.DNS
	template.PermittedURIDomains, template.ExcludedURIDomains = c.permitted.names.URI, c.excluded.names.URI
	template.PermittedIPRanges, template.ExcludedIPRanges = c.permitted.nets(), c.excluded.nets()
}

func (s *side) nets() (nets []*net.IPNet) {
	for _, p := range s.ranges {
		nets = append(nets, &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())})
	}
	return nets
}

// Permitted and Excluded return the patterns.
func (c *Constraints) Permitted() Names {
	if c == nil {
		return Names{}
	}
	return c.permitted.names
}

// Excluded is described with Permitted.
func (c *Constraints) Excluded() Names {
	if c == nil {
		return Names{}
	}
	return c.excluded.names
}

// Equal reports whether two say the same, in whatever order.
func (c *Constraints) Equal(o *Constraints) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.permitted.equal(&o.permitted) && c.excluded.equal(&o.excluded)
}

func (s *side) equal(o *side) bool {
	sorted := func(list []string) []string { return slices.Sorted(slices.Values(list)) }
	return slices.Equal(sorted(s.names.DNS), sorted(o.names.DNS)) && slices.Equal(sorted(s.names.URI), sorted(o.names.URI)) &&
		slices.Equal(slices.SortedFunc(slices.Values(s.ranges), netip.Prefix.Compare), slices.SortedFunc(slices.Values(o.ranges), netip.Prefix.Compare))
}

// Permits returns an error unless clients would believe a certificate for the
// name. A URI whose host is an address is not permitted where there is any
// constraint: clients cannot compare it.
func (c *Constraints) Permits(text string) error {
	if c == nil {
		return nil
	}
	n := read(text)
	if n.kind == kindURI && n.host == "" {
		return fmt.Errorf("%.253q has no host name, which clients need below a CA with name constraints: another CA is needed for it", text)
	}
	if by := c.excluded.excludes(n); by != "" {
		return fmt.Errorf("%.253q is excluded by the name constraint %q, which stands in the CA's certificate: another CA is needed for it", text, by)
	}
	if c.permitted.permits(n) {
		return nil
	}
	return fmt.Errorf("%.253q is not among the %s that the name constraints in the CA's certificate permit (%s): another CA is needed for it", text, n.kind, c.permitted.names)
}

// permits reports whether one of the patterns of the name's kind fits it, or
// there are none.
func (s *side) permits(n name) bool {
	switch n.kind {
	case kindIP:
		return len(s.ranges) == 0 || s.inRange(n.ip) != ""
	case kindURI:
		return len(s.names.URI) == 0 || slices.ContainsFunc(s.names.URI, func(pattern string) bool {
			return n.host == pattern || pattern[0] == '.' && strings.HasSuffix(n.host, pattern)
		})
	}
	return len(s.names.DNS) == 0 || slices.ContainsFunc(s.names.DNS, func(domain string) bool { return within(n.dns, domain) })
}

// excludes returns the pattern that fits the name; "" if none does. A wildcard is
// excluded where a name is that it stands for.
func (s *side) excludes(n name) string {
	switch n.kind {
	case kindIP:
		return s.inRange(n.ip)
	case kindURI:
		for _, pattern := range s.names.URI {
			if within(n.host, pattern) || strings.HasSuffix(n.host, pattern) && pattern[0] == '.' {
				return pattern
			}
		}
		return ""
	}
	base, wildcard := strings.CutPrefix(n.dns, "*.")
	for _, domain := range s.names.DNS {
		_, above, _ := strings.Cut(domain, ".")
		if within(n.dns, domain) || wildcard && above == base {
			return domain
		}
	}
	return ""
}

func (s *side) inRange(ip netip.Addr) string {
	for _, p := range s.ranges {
		if p.Contains(ip) {
			return p.String()
		}
	}
	return ""
}
