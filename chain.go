// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
)

// orderChain returns certs, which are all different, as one path from the leaf upwards,
// in which each certificate is signed by the next (RFC 8446, section 4.4.2). The order
// as given is kept where it is right. CAs, files put together by hand and cross-signed
// roots give the same certificates in other orders.
func orderChain(certs []*x509.Certificate, leaf int) ([]*x509.Certificate, error) {
	o := orderer{certs: certs, signed: map[[2]int]error{}}
	path := o.extend([]int{leaf})
	if path == nil {
		return nil, o.broken(leaf)
	}
	chain := make([]*x509.Certificate, len(path))
	for i, at := range path {
		chain[i] = certs[at]
	}
	return chain, nil
}

type orderer struct {
	certs  []*x509.Certificate
	signed map[[2]int]error // so that no signature is verified twice
}

// extend returns a path that begins with the one given and has all certificates, or nil.
// A root is tried last, as nothing need come after it. There are at most
// maxChain, so trying all orders is bounded.
func (o *orderer) extend(path []int) []int {
	if len(path) == len(o.certs) {
		return path
	}
	last := path[len(path)-1]
	for _, root := range [...]bool{false, true} {
		for next, c := range o.certs {
			if isRoot(c) != root || slices.Contains(path, next) || o.link(last, next) != nil {
				continue
			}
			if found := o.extend(append(path, next)); found != nil {
				return found
			}
		}
	}
	return nil
}

// link returns nil if the certificate at child is signed by the one at parent.
func (o *orderer) link(child, parent int) error {
	at := [2]int{child, parent}
	err, known := o.signed[at]
	if !known {
		if bytes.Equal(o.certs[child].RawIssuer, o.certs[parent].RawSubject) {
			err = o.certs[child].CheckSignatureFrom(o.certs[parent])
		} else {
			err = fmt.Errorf("its issuer is %.100q", o.certs[child].Issuer)
		}
		o.signed[at] = err
	}
	return err
}

// broken describes the first link, in the order given, that does not hold.
func (o *orderer) broken(leaf int) error {
	order := []int{leaf}
	for i := range o.certs {
		if i != leaf {
			order = append(order, i)
		}
	}
	for i := 1; i < len(order); i++ {
		child, parent := order[i-1], order[i]
		if err := o.link(child, parent); err != nil {
			return fmt.Errorf("%w: %s is not signed by %s (%w); give the leaf and its own intermediates, and nothing else",
				ErrBrokenChain, describe(o.certs[child]), describe(o.certs[parent]), err)
		}
	}
	return ErrBrokenChain // not reached: what links in the order given is a path
}

// isRoot reports whether c says of itself that its own key signed it. Self-issued
// certificates for a change of a CA's key have another authority key identifier (RFC
// 5280, sections 3.2 and 4.2.1.1).
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) &&
		(len(c.AuthorityKeyId) == 0 || bytes.Equal(c.AuthorityKeyId, c.SubjectKeyId))
}
