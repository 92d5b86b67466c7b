// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/tls"
	"errors"
	"strings"
)

// Alerts that are looked at beside being explained (RFC 8446, section 6).
const (
	alertHandshakeFailure tls.AlertError = 40
	alertAccessDenied     tls.AlertError = 49
	alertInternalError    tls.AlertError = 80
	alertUnrecognizedName tls.AlertError = 112
)

// An alert says what a peer means by it. It is read by either side.
type alert struct {
	cause          Cause
	detail, remedy string
}

// alerts has those that a handshake ends with in practice.
var alerts = map[tls.AlertError]alert{
	alertHandshakeFailure: {
		HandshakeFailure, "found nothing that both can use: cipher suites, groups, signature algorithms. Some servers say so too if they have no certificate for the name asked for, and in TLS 1.2 if they miss the client's",
		"Compare what both sides allow; a server whose only certificate is of a kind that the client does not know fails so as well. Or ask for a name that the server has.",
	},
	42: {CertificateRefused, "refused the certificate that it was shown, and does not say why", refusedRemedy},
	43: {
		MissingEKU, "refused the certificate that it was shown: it is of the wrong kind, most often for want of an extended key usage",
		"Have it issued with the extended key usage serverAuth for a server, clientAuth for a client.",
	},
	44: {Revoked, "refused the certificate that it was shown: it is revoked", "Have a new one issued, with a new key."},
	45: {
		Expired, "refused the certificate that it was shown: it has expired, or is not yet valid by the peer's clock",
		"Renew it; if it is valid, set the peer's clock. If it was renewed, the process still shows the old one: reload or restart it.",
	},
	46: {CertificateRefused, "refused the certificate that it was shown, for a reason of its own", refusedRemedy},
	48: {
		WrongPool, "does not know the CA of the certificate that it was shown",
		"Add that CA to the peer's pool: the client CAs of a server, the roots of a client. Or send the missing intermediate, or a certificate of a CA that it knows.",
	},
	alertAccessDenied: {AccessDenied, "accepted the certificate and refuses its holder", "Allow the certificate's name in the peer's rules of access."},
	51: {
		HandshakeFailure, "could not verify a signature",
		"Look whether key and certificate are of one pair.",
	},
	70: {
		ProtocolVersion, "speaks no version of TLS that this side speaks",
		"Allow TLS 1.2 and 1.3 on both sides.",
	},
	71: {
		HandshakeFailure, "wants stronger parameters than this side offers",
		"Compare the cipher suites, groups and versions that both sides allow.",
	},
	alertInternalError: {
		UnknownName, "failed in itself. Most often it has no certificate for the name asked for: a server in Go has no other alert for that",
		"Ask for a name that the server has, or give it a certificate for this one, or a default. Its log has the reason.",
	},
	86: {ProtocolVersion, "noticed that a lower version of TLS was tried than both sides speak", "Find what lies between and breaks the first attempt."},
	alertUnrecognizedName: {
		UnknownName, "has no certificate for the name asked for",
		"Ask for a name that the server has, or give it a certificate for this one, or a default.",
	},
	116: {
		NoClientCertificate, "wants a client certificate, and was not given one",
		clientRemedy,
	},
	120: {
		NoCommonProtocol, "speaks none of the application protocols (ALPN) that were offered",
		"Compare the protocols that both sides have, such as h2 and http/1.1.",
	},
}

const (
	refusedRemedy = "Its log has the reason. Where a client says this, it does not trust the server's certificate: examine the server. Where a server says it, it does not take the client's: look at its pool of client CAs, and whether the certificate has the extended key usage clientAuth."
	clientRemedy  = "Give the client a certificate of a CA that the server knows (keyturn doctor --cert FILE --key FILE)."
)

// alertOf returns the alert that a peer has sent. crypto/tls has no exported type for
// it outside QUIC, only the text, and logs have nothing else.
func alertOf(err error) (tls.AlertError, bool) {
	if a, ok := errors.AsType[tls.AlertError](err); ok {
		return a, true
	}
	_, text, ok := strings.Cut(err.Error(), "remote error: ")
	if !ok {
		return 0, false
	}
	text, _, _ = strings.Cut(text, "\n")
	for n := range 1 << 8 {
		if a := tls.AlertError(n); text == a.Error() {
			return a, true
		}
	}
	return 0, false
}

func explainAlert(err error) []Finding {
	a, ok := alertOf(err)
	if !ok {
		return nil
	}
	known, ok := alerts[a]
	if !ok {
		return []Finding{found(HandshakeFailure, Error, "Its log has the reason.", "The peer ended the handshake (alert %s).", alertName(a))}
	}
	return []Finding{found(known.cause, Error, known.remedy, "The peer %s (alert %s).", known.detail, alertName(a))}
}

// alertName is the alert's name without the package that says it.
func alertName(a tls.AlertError) string {
	return quote(strings.TrimPrefix(a.Error(), "tls: "))
}
