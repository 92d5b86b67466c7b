// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keyturn/keyturn/internal/printable"
)

// Errors of Check. Each is wrapped with what was found and what was wanted.
var (
	// ErrWrongKey means that the leaf is for another key than the request's.
	ErrWrongKey = errors.New("the certificate is for another key than the one requested")
	// ErrWrongNames means that the leaf has not exactly the requested subject
	// alternative names: one is missing, or one is there that nobody asked for.
	ErrWrongNames = errors.New("the certificate does not have exactly the requested names")
	// ErrExpired means that the leaf or an intermediate is no longer valid.
	ErrExpired = errors.New("the certificate has expired")
	// ErrNotYetValid means that the leaf or an intermediate is not valid yet.
	ErrNotYetValid = errors.New("the certificate is not yet valid")
	// ErrBrokenChain means that the chain is empty, too long or too big, does
	// not parse, has data after a certificate, does not link in its order, or
	// is one that RFC 5280 section 6 does not allow.
	ErrBrokenChain = errors.New("the certificate chain is broken")
	// ErrWrongUsage means that the leaf cannot be used by a TLS server, or for what
	// CheckFor was asked.
	ErrWrongUsage = errors.New("the certificate is not for this use")
)

// Bounds of a chain.
const (
	// MaxChainLength is the most certificates that a chain may have. It is the
	// depth that browsers and TLS libraries verify by default, or less.
	MaxChainLength = 10
	// MaxChainSize is the most bytes that a chain may have. A TLS client refuses
	// a longer certificate message: OpenSSL's limit is 100 KiB by default, and
	// Go's was 64 KiB.
	MaxChainSize = 64 << 10
)

// Check looks at a CA's answer to csr as a client will at the time now, and
// returns the leaf. Nothing is published or served that has not passed it.
//
// It requires that
//   - the chain has 1 to MaxChainLength certificates, the leaf first, each
//     signed by the one after it (RFC 8446 section 4.4.2 makes the order a
//     SHOULD; here it is a must), with nothing after any of them, and that path
//     lengths and name constraints hold (ErrBrokenChain);
//   - the leaf is for the request's key (ErrWrongKey) and has its subject
//     alternative names, no more and no fewer, DNS names without regard to
//     letter case, repetitions not counted (ErrWrongNames);
//   - now lies in the validity of the leaf and of each intermediate, ends
//     included (ErrExpired, ErrNotYetValid). A self-signed certificate at the
//     end is not looked at: clients use their own copy;
//   - the leaf allows extended key usage serverAuth by name and, if it has a
//     key usage at all, digitalSignature (RFC 8446 section 4.4.2.2), is not a
//     CA, and that no intermediate forbids that use (ErrWrongUsage).
//
// Whether clients trust the end of the chain is not looked at.
func Check(chain [][]byte, csr *x509.CertificateRequest, now time.Time) (leaf *x509.Certificate, err error) {
	return CheckFor(chain, csr, now, x509.ExtKeyUsageServerAuth)
}

// CheckFor is Check for one other use, such as [x509.ExtKeyUsageClientAuth]: it
// takes the place of serverAuth above.
func CheckFor(chain [][]byte, csr *x509.CertificateRequest, now time.Time, usage x509.ExtKeyUsage) (leaf *x509.Certificate, err error) {
	if csr == nil {
		return nil, errors.New("checking a certificate chain: no request is given to check it against")
	}
	certs, err := parseChain(chain)
	if err != nil {
		return nil, err
	}
	leaf = certs[0]
	for _, check := range []func() error{
		func() error { return checkKey(leaf, csr) },
		func() error { return checkNames(leaf, csr) },
		func() error { return checkUsage(leaf, usage) },
		func() error { return checkLinks(certs) },
		func() error { return checkValidity(withoutRoot(certs), now) },
		func() error { return checkPath(withoutRoot(certs), now, usage) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return leaf, nil
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > MaxChainLength {
		return nil, fmt.Errorf("%w: it has %d certificates; 1 to %d are allowed", ErrBrokenChain, len(chain), MaxChainLength)
	}
	size := 0
	for _, der := range chain {
		size += len(der)
	}
	if size > MaxChainSize {
		return nil, fmt.Errorf("%w: it has %d bytes; TLS clients take %d at most", ErrBrokenChain, size, MaxChainSize)
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		c, err := x509.ParseCertificate(der) // refuses data after the certificate
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d of %d: %w", ErrBrokenChain, i+1, len(chain), err)
		}
		certs[i] = c
	}
	return certs, nil
}

func checkKey(leaf *x509.Certificate, csr *x509.CertificateRequest) error {
	key, ok := leaf.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !key.Equal(csr.PublicKey) {
		return fmt.Errorf("%w (%s, %s)", ErrWrongKey, leaf.PublicKeyAlgorithm, name(leaf))
	}
	return nil
}

func checkUsage(leaf *x509.Certificate, usage x509.ExtKeyUsage) error {
	switch {
	case leaf.IsCA:
		return fmt.Errorf("%w: %s is a CA", ErrWrongUsage, name(leaf))
	case !slices.Contains(leaf.ExtKeyUsage, usage):
		return fmt.Errorf("%w: %s lacks the extended key usage %s", ErrWrongUsage, name(leaf), usage)
	case leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return fmt.Errorf("%w: the key usage of %s lacks digitalSignature", ErrWrongUsage, name(leaf))
	}
	return nil
}

func checkLinks(certs []*x509.Certificate) error {
	for i, c := range certs[:len(certs)-1] {
		parent := certs[i+1]
		if !bytes.Equal(c.RawIssuer, parent.RawSubject) {
			return fmt.Errorf("%w: certificate %d is issued by %s, but certificate %d is %s", ErrBrokenChain, i+1, quoted(c.Issuer.String()), i+2, quoted(parent.Subject.String()))
		}
		if err := c.CheckSignatureFrom(parent); err != nil {
			return fmt.Errorf("%w: certificate %d is not signed by certificate %d: %w", ErrBrokenChain, i+1, i+2, err)
		}
	}
	return nil
}

// withoutRoot drops a self-signed certificate after the leaf: it proves
// nothing, and a client that trusts the root uses its own copy.
func withoutRoot(certs []*x509.Certificate) []*x509.Certificate {
	last := certs[len(certs)-1]
	if len(certs) > 1 && bytes.Equal(last.RawIssuer, last.RawSubject) {
		return certs[:len(certs)-1]
	}
	return certs
}

func checkValidity(certs []*x509.Certificate, now time.Time) error {
	for i, c := range certs {
		switch {
		case now.Before(c.NotBefore):
			return fmt.Errorf("%w: certificate %d (%s) begins at %s, and now it is %s; compare the clocks", ErrNotYetValid, i+1, name(c), stamp(c.NotBefore), stamp(now))
		case now.After(c.NotAfter):
			return fmt.Errorf("%w: certificate %d (%s) ended at %s, and now it is %s", ErrExpired, i+1, name(c), stamp(c.NotAfter), stamp(now))
		}
	}
	return nil
}

// checkPath has crypto/x509 apply the rest of RFC 5280 section 6: path lengths,
// name constraints, nested extended key usages, unknown critical extensions.
// The chain's own end stands in for the root.
func checkPath(certs []*x509.Certificate, now time.Time, usage x509.ExtKeyUsage) error {
	last := len(certs) - 1
	opts := x509.VerifyOptions{
		Roots:         x509.NewCertPool(),
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{usage},
	}
	opts.Roots.AddCert(certs[last])
	for _, c := range certs[min(1, last):last] {
		opts.Intermediates.AddCert(c)
	}
	_, err := certs[0].Verify(opts)
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.IncompatibleUsage:
		return fmt.Errorf("%w: an intermediate does not allow it: %w", ErrWrongUsage, err)
	}
	return fmt.Errorf("%w: %w", ErrBrokenChain, err)
}

// name says which certificate is meant, for an error.
func name(c *x509.Certificate) string {
	switch {
	case len(c.DNSNames) > 0:
		return printable.Start(c.DNSNames[0], maxName)
	case len(c.IPAddresses) > 0:
		return c.IPAddresses[0].String()
	case len(c.URIs) > 0:
		return printable.Start(c.URIs[0].String(), maxName)
	}
	return quoted(c.Subject.String())
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
