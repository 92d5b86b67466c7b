// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/issuer"
)

// ErrEnded is returned by Issue when the intermediate is no longer valid. Only
// a new CA helps.
var ErrEnded = errors.New("the CA's intermediate certificate has ended")

// Issue implements [issuer.Issuer]. The chain is the leaf and the intermediate.
//
// The certificate begins a little before now (Config.Backdate) and ends
// lifetime after now, or as long after it as the configuration allows, but it
// never begins before the intermediate and never ends after it. Times are cut
// to seconds. Its serial number is random.
//
// Refused with [issuer.ErrRefused] are requests with a wrong signature; with
// none or more than 100 names; with names that are not syntactically valid DNS
// names, IP addresses or absolute URIs with a host; with an RSA key under 2048
// or over 8192 bits, or one that is not RSA, ECDSA on P-256, P-384 or P-521,
// or Ed25519; lifetimes below 0; extended key usages other than those of TLS;
// names that the CA's name constraints or the configuration do not allow, and
// usages that it does not. A request that asks for usages gets these, any other
// all that are allowed.
func (ca *CA) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("signing with %s: %w", ca, err)
	}
	if lifetime < 0 {
		return nil, fmt.Errorf("signing with %s: %w: the lifetime %s is negative", ca, issuer.ErrRefused, lifetime)
	}
	template, err := vet(csr)
	if err != nil {
		return nil, fmt.Errorf("signing with %s: %w: %w", ca, issuer.ErrRefused, err)
	}
	if err := ca.permits(template); err != nil {
		return nil, fmt.Errorf("signing with %s: %w", ca, err)
	}
	if err := ca.complete(template, lifetime); err != nil {
		return nil, fmt.Errorf("signing with %s: %w", ca, err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.intermediate.cert, csr.PublicKey, ca.intermediate.key)
	if err != nil {
		return nil, fmt.Errorf("signing with %s: %w", ca, err)
	}
	return [][]byte{der, append([]byte(nil), ca.intermediate.cert.Raw...)}, nil
}

// complete adds what the CA decides to what was taken from the request.
func (ca *CA) complete(template *x509.Certificate, lifetime time.Duration) (err error) {
	if err := ca.ended(); err != nil {
		return err
	}
	now, end := time.Now(), ca.intermediate.cert.NotAfter
	if lifetime == 0 {
		lifetime = ca.config.Lifetime
	}
	lifetime = min(lifetime, ca.config.MaxLifetime)
	template.NotBefore = now.Add(-ca.config.backdate(lifetime))
	template.NotAfter = now.Add(lifetime)
	if template.NotAfter.After(end) {
		template.NotAfter = end
	}
	if begin := ca.intermediate.cert.NotBefore; template.NotBefore.Before(begin) {
		template.NotBefore = begin
	}
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageDigitalSignature
	if template.PublicKeyAlgorithm == x509.RSA {
		template.KeyUsage |= x509.KeyUsageKeyEncipherment // RFC 5246 section 7.4.2: RSA key exchange in TLS 1.2
	}
	if ca.config.CRLURL != "" {
		template.CRLDistributionPoints = []string{ca.config.CRLURL}
	}
	if template.SubjectKeyId, err = keyID(template.PublicKey); err != nil {
		return err
	}
	template.SerialNumber, err = newSerial()
	return err
}

// ended returns an error if the CA cannot sign any more.
func (ca *CA) ended() error {
	end := ca.intermediate.cert.NotAfter
	if time.Now().Before(end) {
		return nil
	}
	return fmt.Errorf("%w at %s: make a new CA", ErrEnded, end.UTC().Format(time.RFC3339))
}
