// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// maxLinks is how many certificates of a chain are looked at one by one. Real chains
// have two to four; crypto/tls takes what fits into 256 KiB.
const maxLinks = 20

// A chainCheck is a chain that a server sent, verified as a client does.
type chainCheck struct {
	sent  []*x509.Certificate // leaf first; at least one
	roots *x509.CertPool      // nil: the system's
	name  string
	now   time.Time

	path     []*x509.Certificate // from the leaf upwards as far as it can be followed
	anchored bool                // the last of path is in the pool
	findings []Finding
}

// run fills path, anchored and findings. There is an error among the findings if and
// only if crypto/x509 refuses the chain.
func (c *chainCheck) run() {
	path, err := c.search()
	if c.anchored = err == nil; c.anchored {
		c.path = path
	} else {
		c.path = ascend(c.sent[:min(len(c.sent), maxLinks)])
	}
	for i, cert := range c.path {
		c.checkTime(i, cert)
		c.checkStrength(i, cert)
	}
	if !c.anchored {
		c.unanchored(err)
	}
	leaf := c.sent[0]
	if f, ok := explainName(leaf, c.name); ok {
		c.findings = append(c.findings, f)
	}
	c.checkUsage()
	c.checkSent()
	// The rules above are this package's; the verdict is not.
	if _, err := c.verify(c.now, x509.ExtKeyUsageServerAuth, c.name); err != nil && !failed(c.findings) {
		c.findings = append(c.findings, Explain(err)...)
	}
}

func (c *chainCheck) verify(now time.Time, usage x509.ExtKeyUsage, name string) ([][]*x509.Certificate, error) {
	between := x509.NewCertPool()
	for _, cert := range c.sent[1:] {
		between.AddCert(cert)
	}
	return c.sent[0].Verify(x509.VerifyOptions{
		DNSName: name, Intermediates: between, Roots: c.roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
}

// search returns the path to a root in the pool: one that is good now for a server, else
// one that was or will be at another time, or is for another use. So what an expired
// certificate hides is seen too.
func (c *chainCheck) search() ([]*x509.Certificate, error) {
	chains, err := c.verify(c.now, x509.ExtKeyUsageServerAuth, "")
	if err == nil {
		return shortest(chains), nil
	}
	times := []time.Time{c.now}
	for _, cert := range c.sent[:min(len(c.sent), maxLinks)] {
		times = append(times, cert.NotBefore, cert.NotAfter)
	}
	for _, t := range times {
		chains, other := c.verify(t, x509.ExtKeyUsageAny, "")
		if other == nil {
			return shortest(chains), nil
		}
		if expired(err) {
			err = other // something else is wrong as well
		}
	}
	return nil, err
}

func expired(err error) bool {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	return ok && invalid.Reason == x509.Expired
}

func shortest(chains [][]*x509.Certificate) []*x509.Certificate {
	return slices.MinFunc(chains, func(a, b []*x509.Certificate) int { return len(a) - len(b) })
}

// ascend returns the way from the first certificate upwards through the others.
func ascend(certs []*x509.Certificate) []*x509.Certificate {
	path := certs[:1:1]
	for {
		last := path[len(path)-1]
		next := slices.IndexFunc(certs, func(c *x509.Certificate) bool {
			return !slices.ContainsFunc(path, c.Equal) && signedBy(last, c)
		})
		if next < 0 || selfSigned(last) {
			return path
		}
		path = append(path, certs[next])
	}
}

// signedBy reports whether parent signed child. A signature by an algorithm that cannot
// be verified any more counts, since what is wrong is told by its name then.
func signedBy(child, parent *x509.Certificate) bool {
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return false
	}
	err := child.CheckSignatureFrom(parent)
	_, weak := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || weak
}

func selfSigned(c *x509.Certificate) bool {
	if !bytes.Equal(c.RawIssuer, c.RawSubject) {
		return false
	}
	err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	_, weak := errors.AsType[x509.InsecureAlgorithmError](err)
	return err == nil || weak
}

// role names the certificate at a place of the path.
func role(at int, cert *x509.Certificate) string {
	switch {
	case at == 0:
		return "leaf"
	case selfSigned(cert):
		return "root"
	}
	return "intermediate"
}

func (c *chainCheck) checkTime(at int, cert *x509.Certificate) {
	what := "the " + role(at, cert)
	if f, ok := explainTime(what, cert, c.now); ok {
		if at > 0 && f.Cause == Expired {
			f.Remedy = "Serve the chain that the CA gives out today, have the leaf issued anew if there is none for it, and give clients the CA's newer root if it has one."
		}
		c.findings = append(c.findings, f)
		return
	}
	if at > 0 && !cert.NotAfter.Before(c.sent[0].NotAfter) {
		return // whoever renews the leaf in time gets another chain with it
	}
	const share = 10
	life, left := cert.NotAfter.Sub(cert.NotBefore), cert.NotAfter.Sub(c.now)
	if left < life/share {
		c.findings = append(c.findings, found(ExpiresSoon, Warning,
			"Renew it now, and see why that has not happened by itself.",
			"%s %s ends at %s: %s are left of a lifetime of %s.", upper(what), title(cert), stamp(cert.NotAfter), span(left), span(life)))
	}
}

// checkStrength looks at the key, and at the signature unless that is a root's, which
// nobody verifies.
func (c *chainCheck) checkStrength(at int, cert *x509.Certificate) {
	what := role(at, cert)
	if weakSignature(cert) && !(c.anchored && at == len(c.path)-1) && !(at > 0 && what == "root") {
		c.findings = append(c.findings, found(WeakSignature, Error,
			"Have it issued anew by a CA that signs with SHA-256 or better.",
			"The %s %s is signed with %s, which can be forged: clients refuse it.", what, title(cert), cert.SignatureAlgorithm))
	}
	const least = 2048 // CA/Browser Forum Baseline Requirements, section 6.1.5
	if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() < least {
		c.findings = append(c.findings, found(WeakKey, Warning,
			"Have it issued anew for an ECDSA key, or an RSA key of 2048 bits or more.",
			"The %s %s has an RSA key of %d bits; some clients refuse fewer than %d.", what, title(cert), key.N.BitLen(), least))
	}
}

func weakSignature(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

func (c *chainCheck) checkUsage() {
	if f, ok := explainUsage(c.sent[0], x509.ExtKeyUsageServerAuth, "the leaf", Error); ok {
		c.findings = append(c.findings, f)
	}
	if !c.anchored {
		return
	}
	for i, cert := range c.path[1:] {
		what := "the " + role(i+1, cert)
		if f, ok := explainUsage(cert, x509.ExtKeyUsageServerAuth, what, Error); ok {
			f.Remedy = "Have the leaf issued by a CA that may issue for servers, or that CA without an extended key usage."
			c.findings = append(c.findings, f)
		}
	}
}

// checkSent compares what was sent with what is needed.
func (c *chainCheck) checkSent() {
	sent := c.sent[:min(len(c.sent), maxLinks)]
	last := 0
	inOrder := true
	for _, cert := range c.path {
		if at := slices.IndexFunc(sent, cert.Equal); at >= 0 {
			inOrder = inOrder && at >= last
			last = at
		}
	}
	if !inOrder {
		c.findings = append(c.findings, found(ChainOrder, Warning,
			"Put the leaf first into the server's file, then the CA that signed it, then the CA that signed that one.",
			"The certificates are not sent in the order of their signatures. TLS 1.3 clients sort them (RFC 8446, section 4.4.2), older ones may refuse."))
	}
	if !c.anchored {
		return
	}
	anchor := c.path[len(c.path)-1]
	for i, cert := range sent {
		switch {
		case slices.ContainsFunc(sent[:i], cert.Equal):
			c.superfluous(Note, "Certificate %d, %s, is sent twice.", i+1, title(cert))
		case i > 0 && selfSigned(cert):
			c.superfluous(Note, "The root %s is sent along. Clients have their own or do not trust it, so that it only takes up room.", title(cert))
		case slices.ContainsFunc(c.path, cert.Equal):
		case c.now.After(cert.NotAfter):
			c.findings = append(c.findings, found(Expired, Warning,
				"Take it out of the server's file.",
				"Certificate %d, %s, is not needed and has ended at %s. Clients that look for no other way fail on it.", i+1, title(cert), stamp(cert.NotAfter)))
		case slices.ContainsFunc(c.path, func(ca *x509.Certificate) bool { return sameCA(cert, ca) }):
			c.findings = append(c.findings, found(Superfluous, Note,
				"Leave it as long as there are clients without that root.",
				"Certificate %d is another one of the CA %s, signed by %s: only clients that do not have the root %s need it.", i+1, title(cert), quote(cert.Issuer.String()), title(anchor)))
		default:
			c.superfluous(Note, "Certificate %d, %s, is not needed for the way to %s.", i+1, title(cert), title(anchor))
		}
	}
	if len(c.sent) > maxLinks {
		c.superfluous(Warning, "%d certificates are sent; only the first %d are shown. Many clients refuse more than ten.", len(c.sent), maxLinks)
	}
	if !selfSigned(anchor) && !slices.ContainsFunc(sent, anchor.Equal) {
		c.findings = append(c.findings, found(IncompleteChain, Warning,
			"Put it into the server's file, after the certificate that it signed.",
			"The intermediate %s is not sent. It is in the pool used here; a client that has only the root of %s refuses the chain.", title(anchor), quote(anchor.Issuer.String())))
	}
}

// sameCA reports whether two certificates are of one CA's name and key, as when another
// CA has signed a root.
func sameCA(a, b *x509.Certificate) bool {
	return bytes.Equal(a.RawSubject, b.RawSubject) && bytes.Equal(a.RawSubjectPublicKeyInfo, b.RawSubjectPublicKeyInfo)
}

func (c *chainCheck) superfluous(s Severity, detail string, v ...any) {
	c.findings = append(c.findings, found(Superfluous, s, "Take it out of the server's file.", detail, v...))
}
