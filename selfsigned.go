// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// SelfSigned makes a certificate that vouches for itself, for development and tests. A
// peer believes it if its Leaf is in the peer's pool, and it can vouch for nothing else.
//
// Each host is a DNS name (A-labels), with or without a wildcard, an IP address or a
// URI; without any they are "localhost", 127.0.0.1 and ::1. org is the subject's
// organisation. It may be used by servers and clients. Its key is ECDSA on P-256. It is
// valid for 365 days, and was so an hour ago, for peers whose clocks are slow; public
// certificates may live 200 days.
func SelfSigned(org string, hosts ...string) (tls.Certificate, error) {
	cert, err := selfSigned(org, hosts, time.Now())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("keyturn: making a self-signed certificate: %w", err)
	}
	return cert, nil
}

func selfSigned(org string, hosts []string, now time.Time) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	// RFC 5280, section 4.1.2.2, allows 20 bytes; this one is positive and has 16.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{org}},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(365 * 24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	if len(hosts) > maxNames {
		return tls.Certificate{}, fmt.Errorf("%w: %d names, at most %d are allowed", ErrTooLarge, len(hosts), maxNames)
	}
	for _, host := range hosts {
		if err := addName(template, host); err != nil {
			return tls.Certificate{}, err
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

func addName(template *x509.Certificate, host string) error {
	if isURI(host) {
		u, err := url.Parse(host)
		if err == nil {
			_, err = partsOf(u, false) // others could not be asked for
		}
		if err != nil {
			return fmt.Errorf("%w: %.100q is not a URI with a host and a path, and nothing else", ErrBadName, host)
		}
		template.URIs = append(template.URIs, u)
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Zone() == "" {
		template.IPAddresses = append(template.IPAddresses, ip.Unmap().AsSlice())
		return nil
	}
	name := strings.TrimSuffix(host, ".")
	if _, ok := keyOf(name); !ok {
		return fmt.Errorf("%w: %.100q is neither a DNS name, nor an IP address, nor a URI", ErrBadName, host)
	}
	template.DNSNames = append(template.DNSNames, name)
	return nil
}
