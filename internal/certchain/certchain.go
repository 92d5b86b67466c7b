// SPDX-License-Identifier: Apache-2.0

// Package certchain makes a chain of what a private CA hands out: a certificate, and
// CA certificates in any order, the root among them or not.
package certchain

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// maxCAs bounds how many certificates are parsed of one text.
const maxCAs = 2 * issuer.MaxChainLength

// Parse reads certificates in PEM, none if the text is empty.
func Parse(text string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := []byte(text)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		if certs = append(certs, cert); len(certs) > maxCAs {
			return nil, fmt.Errorf("it has more than %d certificates", maxCAs)
		}
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("it is not PEM")
	}
	return certs, nil
}

// One reads the one certificate of a text.
func One(text string) (*x509.Certificate, error) {
	certs, err := Parse(text)
	if err == nil && len(certs) != 1 {
		err = fmt.Errorf("it has %d certificates, not one", len(certs))
	}
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

// Link returns the chain of a certificate in DER: itself, and each of the CAs that has
// signed the one before it, up to the root, which is left out. No CA is there twice,
// whoever has signed it: of several certificates of one, the first that is valid now
// counts. The error is [issuer.ErrBrokenChain] if none has signed the certificate.
func Link(leaf *x509.Certificate, cas []*x509.Certificate) ([][]byte, error) {
	chain := [][]byte{leaf.Raw}
	now := time.Now()
	for cert := leaf; !selfSigned(cert); {
		parent := signer(cert, cas, now)
		if parent == nil && len(chain) == 1 {
			return nil, fmt.Errorf("%w: none of the %d CA certificates has signed it", issuer.ErrBrokenChain, len(cas))
		}
		if parent == nil || selfSigned(parent) {
			break
		}
		chain = append(chain, parent.Raw)
		cas = slices.DeleteFunc(slices.Clone(cas), func(ca *x509.Certificate) bool { return same(ca, parent) })
		cert = parent
	}
	return chain, nil
}

// signer returns the first of the CAs that has signed the certificate and is valid, else
// the first that has signed it; nil if none has.
func signer(cert *x509.Certificate, cas []*x509.Certificate, now time.Time) (found *x509.Certificate) {
	for _, ca := range cas {
		switch {
		case !bytes.Equal(cert.RawIssuer, ca.RawSubject) || cert.CheckSignatureFrom(ca) != nil:
		case !now.Before(ca.NotBefore) && !now.After(ca.NotAfter):
			return ca
		case found == nil:
			found = ca
		}
	}
	return found
}

// same reports whether two certificates are those of one CA.
func same(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

// selfSigned reports whether a certificate is issued by its own name and, as far as it
// says, by its own key. What a CA with a new key is issued by its former key is no root
// (RFC 4210 section 4.4: new with old).
func selfSigned(cert *x509.Certificate) bool {
	by, own := cert.AuthorityKeyId, cert.SubjectKeyId
	return bytes.Equal(cert.RawIssuer, cert.RawSubject) && (len(by) == 0 || len(own) == 0 || bytes.Equal(by, own))
}
