// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/x509"
	"slices"
)

// NamesOf returns what a certificate is for, as text: its DNS names, IP addresses
// and URIs, in this order.
func NamesOf(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}
