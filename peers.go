// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Peers are the peers that are believed, by the names in their certificates, for a
// [tls.Config] that no [Trust] has made:
//
//	peers, err := keyturn.ParsePeers("spiffe://example.org/ns/*/sa/web")
//	…
//	config := &tls.Config{
//		GetCertificate:   source.GetCertificate,
//		ClientAuth:       tls.RequireAndVerifyClientCert,
//		ClientCAs:        pool,
//		VerifyConnection: peers.VerifyConnection,
//	}
//
// Peers do not change, and may be used by any number of goroutines at once. The zero value
// believes nobody.
type Peers struct{ names []peerName }

// ParsePeers reads names as [Trust.SetPeerNames] does. With none, nobody is believed.
func ParsePeers(names ...string) (*Peers, error) {
	parsed, err := parsePeerNames(names)
	if err != nil {
		return nil, fmt.Errorf("keyturn: reading the names of peers: %w", err)
	}
	return &Peers{parsed}, nil
}

// VerifyConnection refuses a peer whose certificate has none of the names, with
// [ErrPeerName]. It is made for [tls.Config.VerifyConnection], which is asked of resumed
// sessions, too. A peer that has shown no certificate, or one that the config did not verify,
// is refused: names that nobody vouches for mean nothing.
func (p *Peers) VerifyConnection(cs tls.ConnectionState) error {
	switch {
	case len(cs.PeerCertificates) == 0:
		return fmt.Errorf("keyturn: verifying the peer: %w: it has shown none", ErrPeerName)
	case len(cs.VerifiedChains) == 0:
		return fmt.Errorf("keyturn: verifying the peer: %w: the config verifies no certificate, so that its names mean nothing", ErrPeerName)
	}
	if err := believe(p.names, cs.PeerCertificates[0]); err != nil {
		return fmt.Errorf("keyturn: verifying the peer: %w", err)
	}
	return nil
}

// A peerName is one name by which peers are believed. It has a DNS name or an IP address,
// or a URI.
type peerName struct {
	text  string   // as it was given
	name  string   // a DNS name or an IP address
	uri   []string // as partsOf returns it; "*" is any one part
	below bool     // whether one or more parts follow those of uri
}

// one reports whether the name stands for one URI, rather than for many.
func (p peerName) one() bool { return !p.below && !slices.Contains(p.uri, "*") }

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
	p.below = below
	u, err := url.Parse(base)
	if err == nil {
		p.uri, err = partsOf(u, true)
	}
	if err != nil {
		return p, fmt.Errorf(`%w: %.100q is not a URI with a host and a path, with nothing else but "*" for a whole part of the path, nor is it a SPIFFE ID, if it is to be one`, ErrBadName, text)
	}
	return p, nil
}

func isURI(name string) bool { return strings.Contains(name, "://") }

// isSPIFFE reports whether a URI is meant as a SPIFFE ID (SPIFFE-ID, section 2).
func isSPIFFE(u *url.URL) bool { return u.Scheme == "spiffe" }

// partsOf returns the scheme and the host of a URI, in lower case, in which they are equal
// in any case (RFC 3986, section 6.2.2.1), and each part of its path. It refuses what could
// be written in several ways, or could climb out of a path, and of SPIFFE IDs what their
// standard does not allow. A "*" for a part of the path is allowed in a pattern alone.
func partsOf(u *url.URL, pattern bool) ([]string, error) {
	path := strings.TrimPrefix(u.EscapedPath(), "/")
	odd := u.Opaque != "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" ||
		u.Host == "" || !isASCII(u.Host) || strings.ContainsAny(u.Host, "%*") || path == "" && u.Path != "" ||
		isSPIFFE(u) && (len(u.Host) > maxTrustDomain || !consistsOf(u.Host, trustDomain))
	parts := []string{strings.ToLower(u.Scheme + "://" + u.Host)}
	for part := range strings.SplitSeq(path, "/") {
		if path == "" {
			break
		}
		wild := pattern && part == "*"
		odd = odd || part == "" || part == "." || part == ".." || strings.ContainsAny(part, "%") ||
			!wild && pattern && strings.Contains(part, "*") || !wild && isSPIFFE(u) && !consistsOf(part, pathSegment)
		parts = append(parts, part)
	}
	if odd {
		return nil, ErrBadName
	}
	return parts, nil
}

// What a SPIFFE ID consists of (SPIFFE-ID, sections 2.1 to 2.3).
const (
	trustDomain    = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
	pathSegment    = trustDomain + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	maxTrustDomain = 255
)

func consistsOf(s, bytes string) bool { return s != "" && strings.Trim(s, bytes) == "" }

// matches reports whether a certificate has the name.
func (p peerName) matches(leaf *x509.Certificate) bool {
	if p.uri != nil {
		return slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool {
			// The X.509-SVID standard, section 2: more than one URI is none.
			return !(isSPIFFE(u) && len(leaf.URIs) > 1) && p.matchesURI(u)
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

func (p peerName) matchesURI(u *url.URL) bool {
	parts, err := partsOf(u, false)
	if err != nil || len(parts) < len(p.uri) || (len(parts) > len(p.uri)) != p.below {
		return false
	}
	for i, part := range p.uri {
		if part != "*" && part != parts[i] {
			return false
		}
	}
	return true
}

// believe refuses a certificate that has none of the names.
func believe(names []peerName, leaf *x509.Certificate) error {
	if slices.ContainsFunc(names, func(p peerName) bool { return p.matches(leaf) }) {
		return nil
	}
	return fmt.Errorf("%w: that of %s has none of the %d names", ErrPeerName, describe(leaf), len(names))
}

// checkPeer refuses a certificate that has none of the names that peers must have, if they
// must have any.
func (s *settings) checkPeer(leaf *x509.Certificate) error {
	if len(s.peers) == 0 {
		return nil
	}
	return believe(s.peers, leaf)
}

// hostOf returns a name to verify as crypto/x509 wants it, and as it is sent (SNI).
func hostOf(name string) (verify, send string) {
	name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]"), ".")
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.WithZone("").String(), "" // RFC 6066, section 3, permits no addresses
	}
	return name, name
}
