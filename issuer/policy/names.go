// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// Names are patterns of names, by their kind. What a pattern means is for
// [NewConstraints] and [NewRules] to say.
type Names struct {
	DNS []string `yaml:"dns,omitempty"`
	IP  []string `yaml:"ip,omitempty"` // addresses and ranges: "10.0.0.1", "10.0.0.0/8"
	URI []string `yaml:"uri,omitempty"`
}

// MaxNames is how many patterns a CA certificate, or its rules, can have in
// all. Constraints travel in every handshake: 32 take 8 KB at most.
const MaxNames = 32

// Empty reports whether there is no pattern of any kind.
func (n Names) Empty() bool { return n.count() == 0 }

func (n Names) count() int { return len(n.DNS) + len(n.IP) + len(n.URI) }

// String lists the patterns, ten at most.
func (n Names) String() string {
	all := append(append(append([]string{}, n.DNS...), n.IP...), n.URI...)
	const most = 10
	if more := len(all) - most; more > 0 {
		all = append(all[:most], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(all, ", ")
}

// A kind is one of DNS, IP and URI.
type kind int

const (
	kindDNS kind = iota
	kindIP
	kindURI
)

func (k kind) String() string { return [...]string{"DNS names", "IP addresses", "URIs"}[k] }

// A name is one that a certificate is asked for.
type name struct {
	kind kind
	dns  string // in lower case
	ip   netip.Addr
	uri  string // as normalURI returns it; "" if it has no such form
	host string // of the URI, in lower case; "" if it is an address
}

// read tells the kinds apart. An address stays as it is: one of IPv4 that is
// mapped into IPv6 is in no range of IPv4.
func read(text string) name {
	if ip, err := netip.ParseAddr(text); err == nil {
		return name{kind: kindIP, ip: ip}
	}
	if !strings.Contains(text, "://") {
		return name{kind: kindDNS, dns: strings.ToLower(text)}
	}
	n := name{kind: kindURI}
	u, err := url.Parse(text)
	if err != nil {
		return n
	}
	n.uri, _ = normalURI(u)
	if _, err := netip.ParseAddr(u.Hostname()); err != nil {
		n.host = strings.ToLower(u.Hostname())
	}
	return n
}

// normalURI returns a URI with its scheme and host in lower case, in which they
// are equal in any case (RFC 3986 section 6.2.2.1). It has none for what could
// be written in several ways or could climb out of a path: what is left is what
// SPIFFE IDs consist of (SPIFFE-ID section 2), and ports.
func normalURI(u *url.URL) (string, bool) {
	path := strings.TrimPrefix(u.EscapedPath(), "/")
	if u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Host == "" || strings.Contains(u.Host+path, "%") {
		return "", false
	}
	uri := strings.ToLower(u.Scheme + "://" + u.Host)
	if u.Path == "" {
		return uri, true
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return "", false
		}
	}
	return uri + "/" + path, true
}

// ranges reads addresses and ranges. A range has no bits set behind its length:
// whoever writes 10.1.2.3/8 means something else than is there.
func ranges(texts []string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range texts {
		if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" && !ip.Is4In6() {
			all = append(all, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%.80q is neither an IP address nor a range of them, such as 10.0.0.0/8", text)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("%.80q is an address in a range: write %s", text, p.Masked())
		}
		all = append(all, p)
	}
	return all, nil
}

// checkDomain refuses what is not a DNS name in lower case, letters, digits and
// hyphens, of at least one label.
func checkDomain(domain string) error {
	if len(domain) > 253 { // RFC 1035 section 2.3.4, as text
		return fmt.Errorf("%.80q is longer than 253 characters", domain)
	}
	for label := range strings.SplitSeq(domain, ".") {
		ok := label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-'
		for _, c := range []byte(label) {
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
		}
		if !ok {
			return fmt.Errorf("%.80q is not a DNS name of lower-case letters, digits and hyphens", domain)
		}
	}
	return nil
}

// within reports whether a DNS name is a domain or below it.
func within(name, domain string) bool {
	head, ok := strings.CutSuffix(name, domain)
	return ok && (head == "" || strings.HasSuffix(head, "."))
}
