// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"slices"
)

// explainRefusal explains an alert of a server that asked for a client certificate, or
// returns nil if that is not what the alert is about.
func (x *examination) explainRefusal(err error) []Finding {
	a, ok := alertOf(err)
	f, known := alerts[a]
	if !ok || !known {
		return nil
	}
	if x.Certificate == nil {
		switch f.cause {
		case NoClientCertificate, CertificateRefused, HandshakeFailure, WrongPool, AccessDenied:
		default:
			return nil
		}
		return []Finding{found(NoClientCertificate, Error, clientRemedy,
			"The server wants a client certificate, and none was given (alert %s).%s", alertName(a), x.wanted())}
	}
	own := failed(x.ownFaults(Error))
	switch f.cause {
	case WrongPool:
		return []Finding{x.wrongPool(a)}
	case CertificateRefused, HandshakeFailure, NoClientCertificate:
		if own {
			return []Finding{} // ownFaults say it
		}
		if !x.acceptable() {
			return []Finding{x.wrongPool(a)}
		}
		return []Finding{found(CertificateRefused, Error,
			"Look into the server's log. Most often its pool of client CAs lacks the issuer, the intermediate is missing (give the whole chain in --cert), or the server lets in other names only.",
			"The server refused the client certificate %s, signed by %s, and does not say why (alert %s).", x.ownTitle(), x.ownIssuer(), alertName(a))}
	case Expired, MissingEKU:
		if own {
			return []Finding{}
		}
		fallthrough
	case Revoked, AccessDenied:
		return []Finding{found(f.cause, Error, f.remedy, "The server %s. That is the client certificate %s (alert %s).", f.detail, x.ownTitle(), alertName(a))}
	}
	return nil
}

func (x *examination) wrongPool(a tls.AlertError) Finding {
	return found(WrongPool, Error,
		"Add that CA to the server's pool of client CAs, or give a certificate of a CA that is in it. If an intermediate signed it, give the whole chain in --cert.",
		"The server refused the client certificate %s: its pool lacks the CA %s that signed it (alert %s).%s", x.ownTitle(), x.ownIssuer(), alertName(a), x.wanted())
}

// wanted says which CAs the server names.
func (x *examination) wanted() string {
	if len(x.asked.AcceptableCAs) == 0 {
		return ""
	}
	return " It wants one of " + some(texts(parseNames(x.asked.AcceptableCAs))) + "."
}

// acceptable reports whether the server names a CA of the client's chain, or none.
func (x *examination) acceptable() bool {
	if len(x.asked.AcceptableCAs) == 0 {
		return true
	}
	return slices.ContainsFunc(x.ownChain(), func(c *x509.Certificate) bool {
		return slices.ContainsFunc(x.asked.AcceptableCAs, func(ca []byte) bool { return bytes.Equal(ca, c.RawIssuer) })
	})
}

// checkClient looks at the client's side; err is why the server refused.
func (x *examination) checkClient(err error) {
	if x.ended {
		x.add(found(Closed, Warning,
			"Look into the server's log whether that is because of the client certificate.",
			"The server asks for a client certificate, and closed the connection after the handshake without a word: some refuse one like that."))
	}
	switch {
	case x.asked == nil && x.Certificate == nil:
	case x.asked == nil:
		x.add(x.ownFaults(Warning)...)
		if x.complete {
			x.add(found(ClientCertificateUnused, Note,
				"Let the server ask for one, if it is meant to.",
				"The server does not ask for a client certificate, so that the one given was not shown."))
		}
	case x.Certificate == nil && err == nil && !x.ended:
		x.add(found(NoClientCertificate, Note,
			"If it ought to know the client, give a certificate. An HTTP server may refuse only the request, with status 400 or 403.",
			"The server asks for a client certificate, and accepts that there is none.%s", x.wanted()))
	case x.Certificate != nil:
		x.add(x.ownFaults(Error)...)
		if err == nil && !x.acceptable() {
			x.add(found(WrongPool, Warning,
				"Add the CA to those that the server names; many clients show a certificate only if its CA is among them.",
				"The server accepted the client certificate %s, but does not name its CA %s.%s", x.ownTitle(), x.ownIssuer(), x.wanted()))
		}
	}
}

// ownFaults says what is wrong with the client's certificate, whatever the server said.
func (x *examination) ownFaults(s Severity) []Finding {
	var list []Finding
	for i, cert := range x.ownChain() {
		what := "the client certificate"
		if i > 0 {
			what = "in the client's chain, the " + role(i, cert)
		}
		if f, ok := explainTime(what, cert, x.report.At); ok {
			f.Severity = s
			list = append(list, f)
		}
		if f, ok := explainUsage(cert, x509.ExtKeyUsageClientAuth, what, s); ok {
			list = append(list, f)
		}
	}
	return list
}

// ownChain parses the client's chain, as far as that goes.
func (x *examination) ownChain() []*x509.Certificate {
	var chain []*x509.Certificate
	for _, der := range x.Certificate.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil {
			chain = append(chain, c)
		}
	}
	return chain
}

func (x *examination) ownTitle() string {
	if chain := x.ownChain(); len(chain) > 0 {
		return title(chain[0])
	}
	return "given"
}

func (x *examination) ownIssuer() string {
	if chain := x.ownChain(); len(chain) > 0 {
		return quote(chain[len(chain)-1].Issuer.String())
	}
	return "of no name"
}
