// SPDX-License-Identifier: Apache-2.0

// Package tlsalpn01 answers tls-alpn-01 challenges (RFC 8737), for names and for IP
// addresses (RFC 8738): a CA connects to port 443 by the protocol "acme-tls/1" and is
// shown a certificate with the answer in it.
//
// [Certificate] and [ServerName] make what a keyturn.Store is given that serves the
// port. A [Server] takes the port by itself, where nothing else listens there.
package tlsalpn01

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Protocol is the one by which CAs ask (RFC 8737 section 6.2).
const Protocol = "acme-tls/1"

// idPeACMEIdentifier is the extension with the answer (RFC 8737 section 3).
var idPeACMEIdentifier = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}

// CAs do not look when a certificate is valid; validity is what it has nevertheless,
// an hour of it before now for clocks that differ.
const (
	backdate = time.Hour
	validity = 7 * 24 * time.Hour
)

// Certificate returns the certificate that answers a challenge for a DNS name, or an
// IP address in the form of netip.Addr, with a key of its own.
func Certificate(name, keyAuthorization string) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the answer for %s: %w", name, err)
	}
	template, err := template(name, keyAuthorization)
	if err != nil {
		return nil, fmt.Errorf("making the answer for %s: %w", name, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making the answer for %s: %w", name, err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// template has the name alone in its subject alternative name, and the SHA-256 of the
// key authorization in a critical extension (RFC 8737 section 3).
func template(name, keyAuthorization string) (*x509.Certificate, error) {
	sum := sha256.Sum256([]byte(keyAuthorization))
	value, err := asn1.Marshal(sum[:])
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:    serial(),
		Subject:         pkix.Name{CommonName: "ACME challenge"},
		NotBefore:       now.Add(-backdate),
		NotAfter:        now.Add(validity),
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtKeyUsage:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		ExtraExtensions: []pkix.Extension{{Id: idPeACMEIdentifier, Critical: true, Value: value}},
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		t.IPAddresses = []net.IP{ip.Unmap().AsSlice()}
	} else {
		t.DNSNames = []string{name}
	}
	return t, nil
}

func serial() *big.Int {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: see crypto/rand
	b[0] |= 1              // never zero
	return new(big.Int).SetBytes(b[:])
}

// ServerName returns the server name (SNI) by which a CA asks for a DNS name or an IP
// address: in lower case without trailing dot, and for an address its name below
// in-addr.arpa or ip6.arpa (RFC 8738 section 6), since none can be an address itself.
func ServerName(name string) string {
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return strings.ToLower(strings.TrimSuffix(name, "."))
	}
	ip = ip.Unmap()
	var labels []string
	octets := ip.AsSlice()
	for i := len(octets) - 1; i >= 0; i-- {
		if ip.Is4() {
			labels = append(labels, strconv.Itoa(int(octets[i])))
			continue
		}
		const digits = "0123456789abcdef"
		labels = append(labels, digits[octets[i]&0xf:][:1], digits[octets[i]>>4:][:1])
	}
	if ip.Is4() {
		return strings.Join(labels, ".") + ".in-addr.arpa"
	}
	return strings.Join(labels, ".") + ".ip6.arpa"
}
