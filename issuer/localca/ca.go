// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/policy"
)

var _ issuer.Issuer = (*CA)(nil)

// A CA is a root and an intermediate with their keys. It never changes after
// it is made, so that all its methods may be called at once.
type CA struct {
	root, intermediate authority
	config             Config // complete
	limits             limits
}

// An authority is a CA certificate and its key.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes a CA with new keys. Its root may have one CA below it and its
// intermediate none (RFC 5280 section 4.2.1.9); the intermediate is for TLS
// only. Both begin one minute ago, whatever c.Backdate is, and have c's name
// constraints.
//
// With RSA keys it takes a second or more.
func New(c Config) (*CA, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	if c.Name == "" {
		c.Name = DefaultName
	}
	bound, err := c.limits()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	root, err := newAuthority(&x509.Certificate{
		Subject:    pkix.Name{CommonName: c.Name + rootTitle},
		NotBefore:  now.Add(-DefaultBackdate),
		NotAfter:   now.Add(c.RootLifetime),
		MaxPathLen: 1,
	}, bound.constraints, c.KeyType, nil)
	if err != nil {
		return nil, fmt.Errorf("making the CA's root: %w", err)
	}
	intermediate, err := newAuthority(&x509.Certificate{
		Subject:        pkix.Name{CommonName: c.Name + intermediateTitle},
		NotBefore:      now.Add(-DefaultBackdate),
		NotAfter:       now.Add(c.IntermediateLifetime),
		MaxPathLenZero: true,
		ExtKeyUsage:    policy.AllUsages(),
	}, bound.constraints, c.KeyType, root)
	if err != nil {
		return nil, fmt.Errorf("making the CA's intermediate: %w", err)
	}
	return &CA{*root, *intermediate, c, bound}, nil
}

// The common names after the configured name; the start of the key's
// identifier follows.
const (
	rootTitle         = " Root CA "
	intermediateTitle = " Intermediate CA "
)

// newAuthority completes the template and has it signed by parent; by itself
// where that is nil.
func newAuthority(template *x509.Certificate, bound *policy.Constraints, t issuer.KeyType, parent *authority) (*authority, error) {
	key, err := t.Generate()
	if err != nil {
		return nil, err
	}
	if template.SubjectKeyId, err = keyID(key.Public()); err != nil {
		return nil, err
	}
	if template.SerialNumber, err = newSerial(); err != nil {
		return nil, err
	}
	template.Subject.CommonName += hex.EncodeToString(template.SubjectKeyId[:4])
	template.BasicConstraintsValid, template.IsCA = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	bound.Add(template)
	if parent == nil {
		parent = &authority{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key}, nil
}

// Root returns the root's certificate: what clients trust. It must not be
// changed.
func (ca *CA) Root() *x509.Certificate { return ca.root.cert }

// Intermediate returns the certificate that signs. It must not be changed.
func (ca *CA) Intermediate() *x509.Certificate { return ca.intermediate.cert }

// RootPEM returns the root's certificate as one PEM block (RFC 7468), the form
// in which clients read what they trust.
func (ca *CA) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.cert.Raw})
}

// newSerial returns a random number of 128 bits that start with 01: positive,
// never zero and within 20 octets (RFC 5280 section 4.1.2.2), with 126 bits
// from the system's random source, where the CA/Browser Forum's Baseline
// Requirements section 7.1 ask for 64.
func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x3f | 0x40
	return new(big.Int).SetBytes(b[:]), nil
}

// keyID names a public key by the leftmost 160 bits of the SHA-256 of its bits
// (RFC 7093 section 2, method 1).
func keyID(public crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Key.Bytes)
	return sum[:20], nil
}
