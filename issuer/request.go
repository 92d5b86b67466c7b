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
)

// NewRequest makes a certificate request (RFC 2986) for key, signed by it. The
// names become subject alternative names: those that read as IP addresses
// iPAddress, all others dNSName. DNS names are expected in their normal form:
// lower-case A-labels without a trailing dot. The subject is empty, without a
// common name: clients have not looked at it since RFC 6125, and the newer
// profiles of public CAs refuse it.
//
// The key is used to sign and not kept. At least one name is needed.
func NewRequest(key crypto.Signer, names []string) (*x509.CertificateRequest, error) {
	if len(names) == 0 {
		return nil, errors.New("making a certificate request: no names are given")
	}
	var template x509.CertificateRequest
	for _, name := range names {
		ip, err := netip.ParseAddr(name)
		switch {
		case name == "":
			return nil, errors.New("making a certificate request: a name is empty")
		case err != nil:
			template.DNSNames = append(template.DNSNames, name)
		case ip.Zone() != "":
			return nil, fmt.Errorf("making a certificate request: the address %s has a zone, which a certificate cannot carry", name)
		default:
			template.IPAddresses = append(template.IPAddresses, net.IP(ip.Unmap().AsSlice()))
		}
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
