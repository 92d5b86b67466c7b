// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// The most bytes of a URI name, and of a SPIFFE ID's trust domain (SPIFFE-ID section
// 2.3).
const (
	maxURI    = 2048
	maxDomain = 255
)

// NewRequest makes a certificate request (RFC 2986) for key, signed by it. The
// names become subject alternative names: those that read as IP addresses
// iPAddress, those with "://" uniformResourceIdentifier, all others dNSName. DNS
// names are expected in their normal form: lower-case A-labels without a
// trailing dot. The subject is empty, without a common name: clients have not
// looked at it since RFC 6125, and the newer profiles of public CAs refuse it.
//
// A URI is absolute, has a host, and is spelt as package net/url would, in at
// most 2048 bytes of ASCII. One with the scheme "spiffe" is a SPIFFE ID: the trust
// domain and the path's segments hold nothing but letters, those of the trust
// domain in lower case, digits, dots, hyphens and underscores, and it is the
// request's only URI (SPIFFE-ID section 2, X509-SVID section 2).
//
// The key is used to sign and not kept. At least one name is needed.
func NewRequest(key crypto.Signer, names []string) (*x509.CertificateRequest, error) {
	if len(names) == 0 {
		return nil, errors.New("making a certificate request: no names are given")
	}
	var template x509.CertificateRequest
	for _, name := range names {
		if err := addName(&template, name); err != nil {
			return nil, fmt.Errorf("making a certificate request: %w", err)
		}
	}
	if len(template.URIs) > 1 && slices.ContainsFunc(template.URIs, isSPIFFE) {
		return nil, fmt.Errorf("making a certificate request: %d URIs are given; a certificate with a SPIFFE ID has no other one (X509-SVID section 2)", len(template.URIs))
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("reading back a certificate request: %w", err)
	}
	return csr, nil
}

func addName(template *x509.CertificateRequest, name string) error {
	ip, err := netip.ParseAddr(name)
	switch {
	case name == "":
		return errors.New("a name is empty")
	case strings.Contains(name, "://"):
		u, err := parseURI(name)
		if err != nil {
			return fmt.Errorf("the name %.260q is %w", name, err)
		}
		template.URIs = append(template.URIs, u)
	case err != nil:
		template.DNSNames = append(template.DNSNames, name)
	case ip.Zone() != "":
		return fmt.Errorf("the address %s has a zone, which a certificate cannot carry", name)
	default:
		template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
	}
	return nil
}

// parseURI returns what is wrong with a URI so that it follows "is".
func parseURI(name string) (*url.URL, error) {
	u, err := url.Parse(name)
	// RFC 5280 section 4.2.1.6: absolute, as an IA5String, with a host.
	if err != nil || u.Scheme == "" || u.Hostname() == "" || u.String() != name || !isPrintableASCII(name) {
		return nil, errors.New("not an absolute URI with a host, such as spiffe://example.org/web")
	}
	if len(name) > maxURI {
		return nil, fmt.Errorf("longer than %d bytes", maxURI)
	}
	if !isSPIFFE(u) {
		return u, nil
	}
	if !consistsOf(u.Host, domainBytes) || len(u.Host) > maxDomain {
		return nil, errors.New("not a SPIFFE ID: its trust domain may have lower-case letters, digits, dots, hyphens and underscores, 255 at most")
	}
	rest := strings.TrimPrefix(name, "spiffe://"+u.Host)
	if rest == "" {
		return u, nil
	}
	for segment := range strings.SplitSeq(rest[1:], "/") {
		if !consistsOf(segment, segmentBytes) || segment == "." || segment == ".." {
			return nil, errors.New(`not a SPIFFE ID: the segments of its path may have letters, digits, dots, hyphens and underscores, and none is empty, "." or ".."`)
		}
	}
	return u, nil
}

func isSPIFFE(u *url.URL) bool { return u.Scheme == "spiffe" }

// The bytes of a SPIFFE ID's trust domain and of its path's segments (SPIFFE-ID
// sections 2.1 and 2.2).
const (
	domainBytes  = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
	segmentBytes = domainBytes + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func consistsOf(s, bytes string) bool { return s != "" && strings.Trim(s, bytes) == "" }

func isPrintableASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
