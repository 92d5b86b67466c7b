// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// parsePEM parses a certificate chain and a private key. No error shows any of the key.
func parsePEM(chain, key []byte) (tls.Certificate, error) {
	var cert tls.Certificate
	if n := len(chain) + len(key); n > maxBytes {
		return cert, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, n, maxBytes)
	}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if cert.Certificate = append(cert.Certificate, block.Bytes); len(cert.Certificate) > maxChain {
			return cert, fmt.Errorf("%w: more than %d certificates", ErrTooLarge, maxChain)
		}
	}
	if len(cert.Certificate) == 0 {
		return cert, fmt.Errorf("%w: no CERTIFICATE block in %d bytes of PEM", ErrEmpty, len(chain))
	}
	for block, rest := pem.Decode(key); block != nil; block, rest = pem.Decode(rest) {
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		var err error
		cert.PrivateKey, err = parseKey(block)
		return cert, err
	}
	return cert, fmt.Errorf("%w: no PRIVATE KEY block in %d bytes of PEM", ErrEmpty, len(key))
}

func parseKey(block *pem.Block) (key crypto.PrivateKey, err error) {
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "": // RFC 1421, section 4.6.1.3
		return nil, fmt.Errorf("%w: it is encrypted; decrypt it before", ErrUnsupportedKey)
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("%w: it is in a block of type %.50q; convert it to PKCS #8", ErrUnsupportedKey, block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("parsing the private key: %w", err)
	}
	return key, nil
}

// parseDER parses a private key for a certificate chain.
func parseDER(chain [][]byte, pkcs8 []byte) (tls.Certificate, error) {
	cert := tls.Certificate{Certificate: chain}
	if err := checkSize(chain, pkcs8); err != nil {
		return cert, err
	}
	if len(pkcs8) == 0 {
		return cert, fmt.Errorf("%w: there is no private key", ErrEmpty)
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return cert, fmt.Errorf("parsing the private key: %w", err)
	}
	cert.PrivateKey = key
	return cert, nil
}
