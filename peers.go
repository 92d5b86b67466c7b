// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A peerName is one name by which peers are believed. It has a DNS name or an IP address,
// or a URI.
type peerName struct {
	text string // as it was given
	name string // a DNS name or an IP address
	uri  string // as normalURI returns it, without the "*" at its end
}

// below reports whether the name stands for the URIs below one.
func (p peerName) below() bool { return strings.HasSuffix(p.uri, "/") }

func parsePeerNames(names []string) ([]peerName, error) {
	if len(names) > maxNames {
		return nil, fmt.Errorf("%w: %d names, at most %d are allowed", ErrTooLarge, len(names), maxNames)
	}
	var peers []peerName
	for _, name := range names {
		p, err := parsePeerName(name)
		if err != nil {
			return nil, err
		}
		peers = append(peers, p)
	}
	return peers, nil
}

func parsePeerName(text string) (peerName, error) {
	p := peerName{text: text}
	if !isURI(text) {
		p.name = strings.TrimSuffix(text, ".")
		if _, ok := keyOf(p.name); !ok {
			return p, fmt.Errorf("%w: %.100q is neither a DNS name, nor an IP address, nor a URI", ErrBadName, text)
		}
		return p, nil
	}
	base, below := strings.CutSuffix(text, "/*")
	u, err := url.Parse(base)
	if err == nil {
		p.uri, err = normalURI(u)
	}
	if err != nil || strings.Contains(base, "*") {
		return p, fmt.Errorf("%w: %.100q is not a URI with a host and a path, and nothing else but \"/*\" at its end", ErrBadName, text)
	}
	if below {
		p.uri += "/"
	}
	return p, nil
}

func isURI(name string) bool { return strings.Contains(name, "://") }

// normalURI returns a URI with its scheme and host in lower case, in which they are equal
// in any case (RFC 3986, section 6.2.2.1). It refuses what could be written in several
// ways, or could climb out of a path: what is left is what SPIFFE IDs consist of
// (SPIFFE-ID, section 2), and ports.
func normalURI(u *url.URL) (string, error) {
	path := strings.TrimPrefix(u.EscapedPath(), "/")
	odd := u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" ||
		u.Host == "" || !isASCII(u.Host) || strings.Contains(u.Host+path, "%") || path == "" && u.Path != ""
	for segment := range strings.SplitSeq(path, "/") {
		odd = odd || path != "" && (segment == "" || segment == "." || segment == "..")
	}
	if odd {
		return "", ErrBadName
	}
	uri := strings.ToLower(u.Scheme + "://" + u.Host)
	if path != "" {
		uri += "/" + path
	}
	return uri, nil
}

// matches reports whether a certificate has the name.
func (p peerName) matches(leaf *x509.Certificate) bool {
	if p.uri != "" {
		return slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool {
			uri, err := normalURI(u)
			if p.below() {
				return err == nil && strings.HasPrefix(uri, p.uri)
			}
			return err == nil && uri == p.uri
		})
	}
	parent, wildcard := strings.CutPrefix(p.name, "*.")
	if !wildcard {
		return leaf.VerifyHostname(p.name) == nil
	}
	return slices.ContainsFunc(leaf.DNSNames, func(name string) bool {
		_, ok := keyOf(name)
		_, above, _ := strings.Cut(name, ".")
		return ok && strings.EqualFold(above, parent)
	})
}

// checkPeer refuses a certificate that has none of the names that peers must have.
func (s *settings) checkPeer(leaf *x509.Certificate) error {
	if len(s.peers) == 0 || slices.ContainsFunc(s.peers, func(p peerName) bool { return p.matches(leaf) }) {
		return nil
	}
	return fmt.Errorf("%w: that of %s has none of the %d given to SetPeerNames", ErrPeerName, describe(leaf), len(s.peers))
}

// hostOf returns a name to verify as crypto/x509 wants it, and as it is sent (SNI).
func hostOf(name string) (verify, send string) {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"), ".")
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.WithZone("").String(), "" // RFC 6066, section 3, permits no addresses
	}
	return name, name
}
