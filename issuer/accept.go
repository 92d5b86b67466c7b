// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// CheckRequest refuses what no CA is to be asked to sign, whether or not it would:
// a request that its own key has not signed, one without subject alternative names or
// with a common name that is not one of them, and a negative lifetime. Any error is
// ErrRefused. It is for those who implement [Issuer]; Issue's callers need not know it.
func CheckRequest(csr *x509.CertificateRequest, lifetime time.Duration) error {
	if err := checkRequest(csr, lifetime); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil
}

func checkRequest(csr *x509.CertificateRequest, lifetime time.Duration) error {
	if csr == nil {
		return errors.New("there is no certificate request")
	}
	if lifetime < 0 {
		return fmt.Errorf("the lifetime %s is negative", lifetime)
	}
	if err := csr.CheckSignature(); err != nil {
		return fmt.Errorf("the request is not signed by its key: %w", err)
	}
	names, err := altNames(csr.Extensions)
	switch {
	case err != nil:
		return fmt.Errorf("the request: %w", err)
	case len(names) == 0:
		return errors.New("the request has no names")
	case !named(names, csr.Subject.CommonName):
		return fmt.Errorf("the request has the common name %s, which is not one of its names", quoted(csr.Subject.CommonName))
	}
	return nil
}

// named says whether a common name is one of the names, or empty.
func named(names map[altName]bool, cn string) bool {
	if cn == "" {
		return true
	}
	if ip, err := netip.ParseAddr(cn); err == nil {
		return names[altName{tagIP, string(ip.Unmap().AsSlice())}]
	}
	for n := range names {
		if n.tag != tagIP && strings.EqualFold(n.value, cn) {
			return true
		}
	}
	return false
}
