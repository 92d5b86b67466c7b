// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"cmp"
	"fmt"
	"slices"
)

// A Finding is one thing that is wrong or worth knowing.
type Finding struct {
	Cause    Cause    `json:"cause"`
	Severity Severity `json:"severity"`
	Detail   string   `json:"detail"`           // what is the case, in a sentence or two
	Remedy   string   `json:"remedy,omitempty"` // what to do about it, likewise
}

// A Severity says how bad a [Finding] is.
type Severity string

// From the worst to the least.
const (
	Error   Severity = "error"   // the connection is refused, or ought to be
	Warning Severity = "warning" // some refuse it, or soon will
	Note    Severity = "note"    // worth knowing
)

// A Cause identifies what a [Finding] is about. More can come to exist.
type Cause string

// Of the certificates, the server's or the client's.
const (
	UnknownAuthority   Cause = "unknown-authority"   // nothing in the pool has signed the chain
	IncompleteChain    Cause = "incomplete-chain"    // an intermediate is not sent
	ChainOrder         Cause = "chain-order"         // the chain is sent in another order than that of the signatures
	Superfluous        Cause = "superfluous"         // more is sent than is needed
	Expired            Cause = "expired"             // a certificate has ended
	ExpiresSoon        Cause = "expires-soon"        // less than a tenth of the lifetime is left
	NotYetValid        Cause = "not-yet-valid"       // a certificate has not begun
	NameMismatch       Cause = "name-mismatch"       // the certificate does not cover the name
	MissingEKU         Cause = "missing-eku"         // the extended key usage does not allow this use
	WeakSignature      Cause = "weak-signature"      // SHA-1, MD5
	WeakKey            Cause = "weak-key"            // RSA under 2048 bits
	InvalidCertificate Cause = "invalid-certificate" // breaks another rule of RFC 5280
	Stale              Cause = "stale"               // not the certificate that ought to be there
	AsExpected         Cause = "as-expected"         // exactly the certificate that ought to be there
)

// Of the client's certificate and the server's answer to it.
const (
	NoClientCertificate     Cause = "no-client-certificate"     // asked for and not given
	WrongPool               Cause = "wrong-pool"                // the pool of the one who verifies lacks the issuer
	CertificateRefused      Cause = "certificate-refused"       // refused without a reason
	Revoked                 Cause = "revoked"                   // refused as revoked
	AccessDenied            Cause = "access-denied"             // the certificate is good, its holder may not come in
	ClientCertificateUnused Cause = "client-certificate-unused" // given and not asked for
)

// Of the connection and the handshake.
const (
	Unreachable      Cause = "unreachable"        // no TCP connection
	NoAnswer         Cause = "no-answer"          // a TCP connection, and then silence
	Closed           Cause = "closed"             // ended by the peer without an alert
	NotTLS           Cause = "not-tls"            // the peer speaks something else
	ProtocolVersion  Cause = "protocol-version"   // no TLS version in common, or an old one
	NoCommonProtocol Cause = "no-common-protocol" // no application protocol (ALPN) in common
	HandshakeFailure Cause = "handshake-failure"  // nothing else in common, or a broken message
	UnknownName      Cause = "unknown-name"       // the server has no certificate for the name
	Other            Cause = "other"              // an error that the package does not know
)

func (s Severity) rank() int {
	return slices.Index([]Severity{Error, Warning, Note}, s)
}

// arrange returns the findings worst first, each once, and keeps the order of equals.
func arrange(list []Finding) []Finding {
	slices.SortStableFunc(list, func(a, b Finding) int { return cmp.Compare(a.Severity.rank(), b.Severity.rank()) })
	kept := []Finding{}
	for _, f := range list {
		if !slices.Contains(kept, f) {
			kept = append(kept, f)
		}
	}
	return kept
}

func failed(list []Finding) bool {
	return slices.ContainsFunc(list, func(f Finding) bool { return f.Severity == Error })
}

func found(c Cause, s Severity, remedy, detail string, v ...any) Finding {
	return Finding{Cause: c, Severity: s, Detail: fmt.Sprintf(detail, v...), Remedy: remedy}
}
