// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
)

// A KeyType says what kind of key a certificate is for, in the spelling of the
// command line and of the configuration. The zero value stands for ECDSAP256.
type KeyType string

// The key types. Public CAs sign ECDSA and RSA; Ed25519 is for private ones,
// since browsers do not support it.
const (
	ECDSAP256 KeyType = "ecdsa-p256"
	ECDSAP384 KeyType = "ecdsa-p384"
	RSA2048   KeyType = "rsa-2048"
	RSA4096   KeyType = "rsa-4096"
	Ed25519   KeyType = "ed25519"
)

// KeyTypes returns all key types, the default one first.
func KeyTypes() []KeyType {
	return []KeyType{ECDSAP256, ECDSAP384, RSA2048, RSA4096, Ed25519}
}

// ParseKeyType reads the spelling of a key type, exactly as KeyTypes lists
// them. The empty text is ECDSAP256. The error lists the known types.
func ParseKeyType(s string) (KeyType, error) {
	if s == "" {
		return ECDSAP256, nil
	}
	for _, k := range KeyTypes() {
		if s == string(k) {
			return k, nil
		}
	}
	return "", fmt.Errorf("unknown key type %q: use one of %s", s, keyTypeList())
}

func keyTypeList() string {
	var all []string
	for _, k := range KeyTypes() {
		all = append(all, string(k))
	}
	return strings.Join(all, ", ")
}

// String returns the spelling; that of ECDSAP256 for the zero value.
func (k KeyType) String() string {
	if k == "" {
		return string(ECDSAP256)
	}
	return string(k)
}

// MarshalText is String, for JSON and YAML.
func (k KeyType) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText is ParseKeyType, for JSON and YAML.
func (k *KeyType) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKeyType(string(text))
	return err
}

// KeyTypeOf returns the type of a public key. Of a key of no known type, such as
// RSA with 3072 bits, it is a description that ParseKeyType refuses.
func KeyTypeOf(public crypto.PublicKey) KeyType {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return KeyType("ecdsa-" + strings.ToLower(strings.ReplaceAll(k.Curve.Params().Name, "-", "")))
	case *rsa.PublicKey:
		return KeyType(fmt.Sprintf("rsa-%d", k.N.BitLen()))
	case ed25519.PublicKey:
		return Ed25519
	}
	return KeyType(fmt.Sprintf("%T", public))
}

// Generate makes a new private key from the system's random source: a pointer
// to an ECDSA or RSA key, or an ed25519.PrivateKey. It takes microseconds,
// except for RSA: some 0.1 s for 2048 bits and a second or several for 4096.
func (k KeyType) Generate() (crypto.Signer, error) {
	switch k {
	case "", ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("making a key: unknown key type %q: use one of %s", string(k), keyTypeList())
}
