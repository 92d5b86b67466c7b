// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// Bounds of what is signed.
const (
	maxNames   = 100
	minRSABits = 2048 // CA/Browser Forum Baseline Requirements section 6.1.5
	maxRSABits = 8192 // crypto/tls verifies no larger ones
)

// vet checks a request and takes from it all that is taken from a request: the
// key, the names, and what the certificate shall be for.
func vet(csr *x509.CertificateRequest) (*x509.Certificate, error) {
	if csr == nil {
		return nil, errors.New("there is no request")
	}
	if err := vetKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed by the key it is for: %w", err)
	}
	template := &x509.Certificate{PublicKey: csr.PublicKey, PublicKeyAlgorithm: csr.PublicKeyAlgorithm}
	if err := takeNames(csr, template); err != nil {
		return nil, err
	}
	return template, takeUsages(csr, template)
}

func vetKey(public any) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSABits || bits > maxRSABits {
			return fmt.Errorf("the RSA key has %d bits; %d to %d are allowed", bits, minRSABits, maxRSABits)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("the ECDSA key is on %s; P-256, P-384 and P-521 are allowed", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("keys of type %T are not supported", public)
	}
	return nil
}

// subjectAltName is the extension's object identifier, and the tags are those
// of a GeneralName (RFC 5280 section 4.2.1.6).
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

const (
	tagDNS = 2
	tagURI = 6
	tagIP  = 7
)

// takeNames reads the names from their encoding, since crypto/x509 leaves out
// the kinds that it does not know, and an unknown kind is to be refused.
func takeNames(csr *x509.CertificateRequest, template *x509.Certificate) error {
	var raw []asn1.RawValue
	seen := false
	for _, e := range csr.Extensions {
		if !e.Id.Equal(subjectAltName) {
			continue
		}
		if seen {
			return errors.New("the request has its subject alternative names twice")
		}
		seen = true
		if rest, err := asn1.Unmarshal(e.Value, &raw); err != nil || len(rest) > 0 {
			return errors.New("the subject alternative names do not parse")
		}
	}
	if len(raw) == 0 || len(raw) > maxNames {
		return fmt.Errorf("the request has %d subject alternative names; 1 to %d are allowed", len(raw), maxNames)
	}
	for _, r := range raw {
		if r.Class != asn1.ClassContextSpecific {
			return errors.New("the subject alternative names do not parse")
		}
		if err := takeName(r.Tag, r.Bytes, template); err != nil {
			return err
		}
	}
	return nil
}

func takeName(tag int, value []byte, template *x509.Certificate) error {
	switch tag {
	case tagDNS:
		if problem := badDNSName(string(value)); problem != "" {
			return fmt.Errorf("%.260q is not a DNS name: %s", value, problem)
		}
		template.DNSNames = append(template.DNSNames, string(value))
	case tagIP:
		if len(value) != net.IPv4len && len(value) != net.IPv6len {
			return fmt.Errorf("an IP address has %d bytes", len(value))
		}
		if ip := net.IP(value); len(value) == net.IPv6len && ip.To4() != nil {
			return fmt.Errorf("the address %s is in the form of IPv6, in which no client looks for it: ask for it in four bytes", ip)
		}
		template.IPAddresses = append(template.IPAddresses, net.IP(value))
	case tagURI:
		u, err := url.Parse(string(value))
		if err != nil || u.Scheme == "" || u.Host == "" || u.String() != string(value) {
			return fmt.Errorf("%.260q is not an absolute URI with a host", value)
		}
		template.URIs = append(template.URIs, u)
	default:
		return fmt.Errorf("a subject alternative name has tag %d; DNS names, IP addresses and URIs are allowed", tag)
	}
	return nil
}

// badDNSName says what is wrong with a name of RFC 1034 section 3.5 as amended
// by RFC 1123 section 2.1, whose left-most label may be "*" (RFC 9525 section
// 6.3). It returns "" if nothing is.
func badDNSName(name string) string {
	if len(name) > 253 {
		return "it is longer than 253 characters" // RFC 1035 section 2.3.4, as text
	}
	rest, wildcard := strings.CutPrefix(name, "*.")
	labels := strings.Split(rest, ".")
	if wildcard && len(labels) < 2 {
		return "a wildcard needs two labels after it"
	}
	for _, label := range labels {
		if problem := badLabel(label); problem != "" {
			return problem
		}
	}
	if last := labels[len(labels)-1]; strings.Trim(last, "0123456789") == "" {
		return "its last label is a number" // RFC 1123 section 2.1: it would read as an address
	}
	return ""
}

func badLabel(label string) string {
	switch {
	case label == "":
		return "a label is empty"
	case len(label) > 63:
		return "a label is longer than 63 characters" // RFC 1035 section 2.3.4
	case label[0] == '-' || label[len(label)-1] == '-':
		return "a label starts or ends with a hyphen"
	}
	for _, c := range []byte(label) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return "a label has characters other than letters, digits and hyphens"
		}
	}
	return ""
}
