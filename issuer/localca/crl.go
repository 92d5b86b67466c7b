// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// A Revocation is a certificate that is not to be believed any more.
type Revocation struct {
	Serial *big.Int
	At     time.Time
	Reason issuer.Reason
}

// CRL returns a list of what is revoked (RFC 5280 section 5), signed by the
// intermediate, in DER. It counts from a little before now, as certificates do,
// for Config.CRLLifetime, which is when clients need the next one.
//
// The CA keeps no list itself. The caller says what is on it and numbers the
// lists: no number may be given twice, and later lists have higher ones. See
// [CA.Keep] for how long a revocation has to be on it. The error may be ErrEnded.
func (ca *CA) CRL(number uint64, revoked []Revocation) ([]byte, error) {
	return ca.list(ca.intermediate, number, revoked)
}

// RootCRL is CRL for what the root signed, which is the intermediate alone and never
// revoked: those who look at a list for every certificate of a chain need it.
func (ca *CA) RootCRL(number uint64) ([]byte, error) { return ca.list(ca.root, number, nil) }

func (ca *CA) list(by authority, number uint64, revoked []Revocation) ([]byte, error) {
	if err := ca.ended(); err != nil {
		return nil, fmt.Errorf("listing what %s has revoked: %w", ca, err)
	}
	now := time.Now()
	template := &x509.RevocationList{
		Number:     new(big.Int).SetUint64(number),
		ThisUpdate: now.Add(-ca.config.backdate(ca.config.CRLLifetime)),
		NextUpdate: now.Add(ca.config.CRLLifetime),
	}
	for _, r := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: r.Serial, RevocationTime: r.At, ReasonCode: int(r.Reason),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, by.cert, by.key)
	if err != nil {
		return nil, fmt.Errorf("listing what %s has revoked: %w", ca, err)
	}
	return der, nil
}

// Keep returns until when the revocation of a certificate that ends at notAfter
// has to be on the lists: on one that is made after its end, too (RFC 5280
// section 3.3), for which there is the time that a list counts.
func (ca *CA) Keep(notAfter time.Time) time.Time { return notAfter.Add(ca.config.CRLLifetime) }

// ErrForeign means that another CA signed the certificate.
var ErrForeign = errors.New("another CA signed the certificate")

// Signed returns ErrForeign, wrapped, unless this CA signed the certificate.
func (ca *CA) Signed(cert *x509.Certificate) error {
	if bytes.Equal(cert.RawIssuer, ca.intermediate.cert.RawSubject) && cert.CheckSignatureFrom(ca.intermediate.cert) == nil {
		return nil
	}
	return fmt.Errorf("%w: it is by %.200q, and not by %q", ErrForeign, cert.Issuer.String(), ca.intermediate.cert.Subject.String())
}
