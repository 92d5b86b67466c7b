// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"slices"
	"strings"
)

// unanchored says why no way leads from the leaf to the pool.
func (c *chainCheck) unanchored(err error) {
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		if !expired(err) || !failed(c.findings) {
			c.findings = append(c.findings, explainX509(err)...)
		}
		return
	}
	if slices.ContainsFunc(c.path, weakSignature) && failed(c.findings) && strings.Contains(err.Error(), "insecure algorithm") {
		return // that is why, and has been said
	}
	c.findings = append(c.findings, explainUnknown(c.sent, c.path, c.roots, err))
}

// explainUnknown tells an unknown authority from an incomplete chain, by the rules of the
// package's documentation. The path is what ascend made of sent; err is the verifier's.
func explainUnknown(sent, path []*x509.Certificate, roots *x509.CertPool, err error) Finding {
	top := path[len(path)-1]
	what, issuer := upper("the "+role(len(path)-1, top))+" "+title(top), quote(top.Issuer.String())
	pool := subjects(roots)
	has := ""
	if len(pool) > 0 {
		has = " The pool has " + some(texts(pool)) + "."
	}
	var namesakes []*x509.Certificate // sent by the name of the missing issuer
	for _, c := range sent[:min(len(sent), maxLinks)] {
		if bytes.Equal(c.RawSubject, top.RawIssuer) && !slices.ContainsFunc(path, c.Equal) {
			namesakes = append(namesakes, c)
		}
	}
	const trust = "get its certificate from a source that you trust, and give it to the clients as a root (keyturn doctor --ca FILE)."
	switch {
	case selfSigned(top) && len(path) == 1:
		return found(UnknownAuthority, Error,
			"Have it issued by a CA that the clients trust, or "+trust,
			"%s is signed by itself, and is not in the pool.%s", what, has)
	case selfSigned(top):
		return found(UnknownAuthority, Error,
			"If clients shall trust it, "+trust,
			"The chain ends in the root %s, which is not in the pool.%s", title(top), has)
	case slices.ContainsFunc(namesakes, func(c *x509.Certificate) bool { return isViolation(top.CheckSignatureFrom(c)) }):
		return found(InvalidCertificate, Error,
			"Have it issued by a CA, or the issuer's certificate as that of a CA.",
			"%s is signed by %s, whose certificate is sent but is not one of a CA that may sign.", what, issuer)
	case len(namesakes) > 0:
		return found(IncompleteChain, Error,
			"Put the chain into the server's file that was issued together with the leaf.",
			"%s is signed by %s. A certificate of that name is sent, but has another key: it is of an earlier or later generation of that CA.", what, issuer)
	case has != "" && slices.Contains(texts(pool), top.Issuer.String()), strings.Contains(err.Error(), "candidate authority certificate"):
		return found(UnknownAuthority, Error,
			"If the CA has a new key, "+trust+" If not, somebody else uses its name.",
			"%s says that %s signed it. The pool has a CA of that name, but with another key, or it may not sign.", what, issuer)
	}
	if reason, ok := incomplete(sent, path, pool); ok {
		where := ""
		if len(top.IssuingCertificateURL) > 0 {
			where = " The CA has it at " + some(top.IssuingCertificateURL) + "."
		}
		return found(IncompleteChain, Error,
			"Put the certificate of "+issuer+" into the server's file, after the leaf: most CAs give out a file with the full chain."+where,
			"%s is signed by %s, which is neither sent nor in the pool. That is taken for an intermediate, since %s.%s", what, issuer, reason, has)
	}
	remedy := "If that is a root, " + trust
	if len(path) == 1 {
		remedy += " If it is an intermediate, the server has to send it: put it into the server's file, after the leaf."
	}
	return found(UnknownAuthority, Error, remedy, "%s is signed by %s, which is neither sent nor in the pool.%s", what, issuer, has)
}

// isViolation reports whether a signature fails for what the parent may do.
func isViolation(err error) bool {
	_, ok := errors.AsType[x509.ConstraintViolationError](err)
	return ok
}

// incomplete reports whether the missing issuer of the last certificate of the path is
// an intermediate, and how that is known.
func incomplete(sent, path []*x509.Certificate, pool []pkix.RDNSequence) (reason string, ok bool) {
	leaf := path[0]
	if len(path) > 1 {
		return "", false
	}
	for _, c := range sent[1:min(len(sent), maxLinks)] {
		if c.IsCA && !c.Equal(leaf) {
			return "CA certificates are sent, such as " + title(c) + ", and none of them signed the leaf", true
		}
	}
	if len(leaf.IssuingCertificateURL) > 0 {
		return "the leaf says where to get it", true
	}
	name := strings.ToLower(leaf.Issuer.CommonName)
	if strings.Contains(name, "intermediate") || strings.Contains(name, "issuing") {
		return "it calls itself one", true
	}
	for _, org := range leaf.Issuer.Organization {
		if org == "" {
			continue
		}
		for _, ca := range pool {
			var n pkix.Name
			n.FillFromRDNSequence(&ca)
			if slices.Contains(n.Organization, org) && n.String() != leaf.Issuer.String() {
				return "a CA of the same organization, " + quote(n.String()) + ", is in the pool", true
			}
		}
	}
	return "", false
}

// subjects reads the names of the CAs in a pool. Those of the system are too many to be
// of use, and not in it.
func subjects(pool *x509.CertPool) []pkix.RDNSequence {
	if pool == nil {
		return nil
	}
	//lint:ignore SA1019 what it says about system pools is why those have no names here
	return parseNames(pool.Subjects())
}

// parseNames reads distinguished names in DER and leaves out what is none.
func parseNames(list [][]byte) []pkix.RDNSequence {
	var names []pkix.RDNSequence
	for _, der := range list {
		var n pkix.RDNSequence
		if rest, err := asn1.Unmarshal(bytes.Clone(der), &n); err == nil && len(rest) == 0 {
			names = append(names, n)
		}
	}
	return names
}

func texts(names []pkix.RDNSequence) []string {
	var list []string
	for _, n := range names {
		list = append(list, n.String())
	}
	return list
}
