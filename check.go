// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// Bounds of what is accepted. Real chains have two to four certificates, the largest
// public ones about a hundred names, and crypto/tls verifies no RSA key over 8192 bits.
const (
	maxBytes   = 256 << 10
	maxChain   = 10
	maxNames   = 1000
	maxRSABits = 8192
)

func checkID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: the id is empty", ErrEmpty)
	case len(id) > maxKey:
		return fmt.Errorf("%w: an id of %d bytes, at most %d are allowed", ErrTooLarge, len(id), maxKey)
	}
	return nil
}

// check makes all the checks but that of the time. It returns the certificate to serve,
// with its chain in order and Leaf set, and the parsed chain. What cert refers to is not
// changed.
func check(cert tls.Certificate) (*tls.Certificate, []*x509.Certificate, error) {
	certs, err := parseChain(cert)
	if err != nil {
		return nil, nil, err
	}
	public, err := publicKey(cert.PrivateKey)
	if err != nil {
		return nil, nil, err
	}
	leaf := slices.IndexFunc(certs, func(c *x509.Certificate) bool { return public.Equal(c.PublicKey) })
	if leaf < 0 {
		return nil, nil, fmt.Errorf("%w: the leaf %s and its key are of different pairs; give both from the same issuance", ErrKeyMismatch, describe(certs[0]))
	}
	chain, err := orderChain(certs, leaf)
	if err != nil {
		return nil, nil, err
	}
	if err := checkLeaf(chain[0]); err != nil {
		return nil, nil, err
	}
	cert.Leaf = chain[0]
	cert.Certificate = make([][]byte, len(chain))
	for i, c := range chain {
		cert.Certificate[i] = c.Raw
	}
	return &cert, chain, nil
}

// parseChain parses the certificates as they are given, each once.
func parseChain(cert tls.Certificate) ([]*x509.Certificate, error) {
	if err := checkSize(cert.Certificate, nil); err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for i, der := range cert.Certificate {
		if slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return bytes.Equal(c.Raw, der) }) {
			continue
		}
		c := cert.Leaf
		if c == nil || !bytes.Equal(c.Raw, der) {
			var err error
			if c, err = x509.ParseCertificate(der); err != nil {
				return nil, fmt.Errorf("parsing certificate %d of %d: %w", i+1, len(cert.Certificate), err)
			}
		}
		if public, ok := c.PublicKey.(*rsa.PublicKey); ok && public.N.BitLen() > maxRSABits {
			return nil, fmt.Errorf("%w: %s has RSA of %d bits, at most %d are allowed", ErrUnsupportedKey, describe(c), public.N.BitLen(), maxRSABits)
		}
		certs = append(certs, c)
	}
	return certs, nil
}

func checkSize(chain [][]byte, key []byte) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: there is no certificate", ErrEmpty)
	}
	if len(chain) > maxChain {
		return fmt.Errorf("%w: %d certificates, at most %d are allowed", ErrTooLarge, len(chain), maxChain)
	}
	size := len(key)
	for _, der := range chain {
		size += len(der)
	}
	if size > maxBytes {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, size, maxBytes)
	}
	return nil
}

type comparableKey interface{ Equal(crypto.PublicKey) bool }

// publicKey returns the public half of a key that crypto/tls can sign with.
func publicKey(private crypto.PrivateKey) (comparableKey, error) {
	if private == nil {
		return nil, fmt.Errorf("%w: there is no private key", ErrEmpty)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%w: %T is not a crypto.Signer", ErrUnsupportedKey, private)
	}
	switch public := signer.Public().(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits > maxRSABits {
			return nil, fmt.Errorf("%w: RSA of %d bits, at most %d are allowed", ErrUnsupportedKey, bits, maxRSABits)
		}
		return public, nil
	case *ecdsa.PublicKey:
		if public.Curve != elliptic.P256() && public.Curve != elliptic.P384() && public.Curve != elliptic.P521() {
			return nil, fmt.Errorf("%w: ECDSA on %s; TLS uses P-256, P-384 and P-521", ErrUnsupportedKey, public.Params().Name)
		}
		return public, nil
	case ed25519.PublicKey:
		return public, nil
	default:
		return nil, fmt.Errorf("%w: %T", ErrUnsupportedKey, public)
	}
}

func checkLeaf(leaf *x509.Certificate) error {
	if n := len(leaf.DNSNames) + len(leaf.IPAddresses) + len(leaf.URIs) + len(leaf.EmailAddresses); n > maxNames {
		return fmt.Errorf("%w: %s has %d names, at most %d are allowed", ErrTooLarge, describe(leaf), n, maxNames)
	}
	server, client := usage(leaf)
	if server && len(leaf.URIs) == 0 && len(keysOf(leaf)) == 0 {
		return fmt.Errorf("%w: the leaf %s has no DNS name, IP address or URI as a subject alternative name that a peer could ask for; have it issued with one", ErrNoNames, describe(leaf))
	}
	if !server && !client {
		return fmt.Errorf("%w: the extended key usage of %s has neither serverAuth nor clientAuth; have it issued with one", ErrWrongUsage, describe(leaf))
	}
	return nil
}

// usage reports whether the extended key usages, none meaning any (RFC 5280, section
// 4.2.1.12), allow servers and clients.
func usage(leaf *x509.Certificate) (server, client bool) {
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return true, true
	}
	for _, u := range leaf.ExtKeyUsage {
		server = server || u == x509.ExtKeyUsageServerAuth || u == x509.ExtKeyUsageAny
		client = client || u == x509.ExtKeyUsageClientAuth || u == x509.ExtKeyUsageAny
	}
	return server, client
}

// checkTime checks what clients check. They have roots of their own, so an expired one
// at the end of the chain does no harm.
func checkTime(chain []*x509.Certificate, now time.Time) error {
	for i, c := range chain {
		what := "the leaf"
		if i > 0 {
			what = "the intermediate"
			if isRoot(c) {
				continue
			}
		}
		if now.After(c.NotAfter) {
			return fmt.Errorf("%w: %s %s was valid until %s and it is %s; have it issued anew", ErrExpired, what, describe(c), stamp(c.NotAfter), stamp(now))
		}
		if now.Before(c.NotBefore) {
			return fmt.Errorf("%w: %s %s is valid from %s and it is %s; wait, or set this machine's clock", ErrNotYetValid, what, describe(c), stamp(c.NotBefore), stamp(now))
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// describe names a certificate in a message, quoted and cut.
func describe(c *x509.Certificate) string {
	name := c.Subject.CommonName
	switch {
	case len(c.DNSNames) > 0:
		name = c.DNSNames[0]
	case len(c.IPAddresses) > 0:
		name = c.IPAddresses[0].String()
	case len(c.URIs) > 0:
		name = c.URIs[0].String()
	}
	return fmt.Sprintf("%.100q", name)
}
