// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/mail"
	"strings"
)

// minRSA is the shortest RSA key of an account, in bits: CAs refuse shorter ones.
const minRSA = 2048

// ParseAccountKey reads an ACME account's private key: one PEM block of PKCS #8,
// SEC 1 or PKCS #1 with an ECDSA or an RSA key. No error shows any of it.
func ParseAccountKey(text string) (crypto.Signer, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("it is not PEM: a private key starts with -----BEGIN PRIVATE KEY-----")
	}
	if strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("something follows the first PEM block: write the private key alone")
	}
	key, err := privateKey(block)
	if err != nil {
		return nil, err
	}
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		if bits := key.Curve.Params().BitSize; bits < 256 {
			return nil, fmt.Errorf("it is an ECDSA key of %d bits: an account's key has at least 256", bits)
		}
		return key, nil
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minRSA {
			return nil, fmt.Errorf("it is an RSA key of %d bits: an account's key has at least %d", bits, minRSA)
		}
		return key, nil
	}
	return nil, errors.New("it is neither an ECDSA nor an RSA key: CAs take no other for an account")
}

// privateKey parses a block. The errors of crypto/x509 do not show what they
// parse, but may say how long it is: they are left out.
func privateKey(block *pem.Block) (any, error) {
	var key any
	var err error
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY", block.Headers["DEK-Info"] != "": // RFC 1421 section 4.6.1.3
		return nil, errors.New("the private key is encrypted: decrypt it before; the shared configuration is sealed as a whole")
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("it is PEM of type %.40q, not a private key", block.Type)
	}
	if err != nil {
		return nil, errors.New("the PEM block holds no private key that can be read")
	}
	return key, nil
}

// accountKey checks the private key of an account and leaves it as it is.
func accountKey(text string) (string, error) {
	_, err := ParseAccountKey(text)
	return text, err
}

// roots checks PEM certificates and leaves them as they are.
func roots(text string) (string, error) {
	n := 0
	for rest := []byte(text); ; n++ {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && n == 0:
			return "", errors.New("it is not PEM: a certificate starts with -----BEGIN CERTIFICATE-----")
		case block == nil && strings.TrimSpace(string(rest)) != "":
			return "", fmt.Errorf("what follows certificate %d is not PEM", n)
		case block == nil:
			return text, nil
		case block.Type != "CERTIFICATE":
			return "", fmt.Errorf("it is PEM of type %.40q: certificates alone belong here", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return "", fmt.Errorf("certificate %d cannot be read: %w", n+1, err)
		}
	}
}

// contact reads a mail address, with or without mailto: before it.
func contact(s string) (string, error) {
	address := strings.TrimPrefix(s, "mailto:")
	a, err := mail.ParseAddress(address)
	// RFC 8555 section 7.3: one address, and no header fields.
	if err != nil || a.Address != address || strings.ContainsAny(address, `?,%"`) {
		return "", fmt.Errorf("%.80q is not a mail address, such as ops@example.com", s)
	}
	return address, nil
}

// hmacKey checks what a CA gives as the key of an external account binding
// (RFC 8555 section 7.3.4). Some pad it.
func hmacKey(s string) (string, error) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	if err != nil || len(b) == 0 {
		return "", errors.New("it is not base64url, as the CA gives it")
	}
	return strings.TrimRight(s, "="), nil
}

func (m *mapping) externalAccount() *EAB {
	m.only("key_id", "hmac_key")
	e := new(EAB)
	m.word("key_id", &e.KeyID)
	parse(m, "hmac_key", &e.HMACKey, hmacKey)
	for _, key := range []string{"key_id", "hmac_key"} {
		if _, given := m.values[key]; !given {
			m.wrong(key, "it is missing: an external account binding has a key_id and an hmac_key, both from the CA")
		}
	}
	return e
}
