// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// A Report is what [Examine] found. Strings that come from the server are cut, and
// escaped as [strconv.Quote] does.
type Report struct {
	At            time.Time `json:"at"`                       // when, UTC
	Address       string    `json:"address"`                  // HOST:PORT
	RemoteAddress string    `json:"remote_address,omitempty"` // of which one answered
	ServerName    string    `json:"server_name"`              // that the certificate has to cover
	Reached       Stage     `json:"reached"`                  // how far it came

	// Of the handshake, from Certificate on.
	Version     string `json:"version,omitempty"`      // as in "TLS 1.3"
	CipherSuite string `json:"cipher_suite,omitempty"` // as IANA names it
	ALPN        string `json:"alpn,omitempty"`         // "" if none was agreed on

	// Chain is the way from the leaf up to the root, and after it what was sent beside
	// it. At most twenty certificates, and the root of the pool.
	Chain    []Link     `json:"chain"`
	Verified bool       `json:"verified"`       // chain, validity, use and name are good
	Ends     *time.Time `json:"ends,omitempty"` // the first end of any on the way, UTC

	ClientCertificateRequested bool     `json:"client_certificate_requested"`
	ClientCertificateSent      bool     `json:"client_certificate_sent"`
	AcceptableCAs              []string `json:"acceptable_cas,omitempty"` // that the server names
	AcceptableCAsLeftOut       int      `json:"acceptable_cas_left_out,omitempty"`

	Findings []Finding `json:"findings"` // worst first; empty if there is nothing to say

	leaf *x509.Certificate // nil before Certificate
}

// A Stage is how far [Examine] came.
type Stage string

// In order.
const (
	Nothing     Stage = "nothing"     // no connection
	Connected   Stage = "connected"   // a TCP connection
	Certificate Stage = "certificate" // the server showed its certificate, and ended the handshake later
	Handshake   Stage = "handshake"   // the whole handshake
)

// A Link is a certificate of the chain.
type Link struct {
	Role     string `json:"role"`     // leaf, intermediate or root
	Position int    `json:"position"` // in what was sent, from 1; 0 if it was not and is from the pool
	Anchor   bool   `json:"anchor"`   // it is what was found in the pool of roots
	Unused   bool   `json:"unused"`   // it was sent and is not on the way

	Subject      string    `json:"subject"` // as in RFC 2253, like Issuer
	Names        []string  `json:"names,omitempty"`
	NamesLeftOut int       `json:"names_left_out,omitempty"` // over 100
	Issuer       string    `json:"issuer"`
	NotBefore    time.Time `json:"not_before"` // UTC, like NotAfter
	NotAfter     time.Time `json:"not_after"`
	KeyType      string    `json:"key_type"`           // ECDSA, RSA, Ed25519 or other
	KeySize      int       `json:"key_size,omitempty"` // in bits
	Usage        []string  `json:"usage,omitempty"`    // extended key usage; empty means any
	Signature    string    `json:"signature"`          // algorithm, as crypto/x509 names it
	Serial       string    `json:"serial"`             // hexadecimal
	SHA256       string    `json:"sha256"`             // of the certificate in DER, hexadecimal
}

// Failed reports whether there is an error among the findings.
func (r *Report) Failed() bool { return failed(r.Findings) }

// linksOf describes the path of a chain and what was sent beside it.
func linksOf(c *chainCheck) []Link {
	sent := c.sent[:min(len(c.sent), maxLinks)]
	var links []Link
	for i, cert := range c.path {
		l := linkOf(cert, role(i, cert))
		l.Position = slices.IndexFunc(sent, cert.Equal) + 1
		l.Anchor = c.anchored && i == len(c.path)-1
		links = append(links, l)
	}
	for i, cert := range sent {
		if slices.ContainsFunc(c.path, cert.Equal) {
			continue
		}
		l := linkOf(cert, role(i, cert))
		if i > 0 && !cert.IsCA {
			l.Role = "leaf"
		}
		l.Position, l.Unused = i+1, true
		links = append(links, l)
	}
	return links
}

func linkOf(cert *x509.Certificate, role string) Link {
	const mostNames = 100
	l := Link{
		Role: role, Subject: shown(cert.Subject.String()), Issuer: shown(cert.Issuer.String()),
		NotBefore: moment(cert.NotBefore), NotAfter: moment(cert.NotAfter),
		Usage: usagesOf(cert), Signature: cert.SignatureAlgorithm.String(),
		Serial: serialOf(cert), SHA256: fmt.Sprintf("%x", sha256.Sum256(cert.Raw)),
		NamesLeftOut: max(0, countNames(cert)-mostNames),
	}
	for _, name := range namesOf(cert, mostNames) {
		l.Names = append(l.Names, shown(name))
	}
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		l.KeyType, l.KeySize = "ECDSA", key.Curve.Params().BitSize
	case *rsa.PublicKey:
		l.KeyType, l.KeySize = "RSA", key.N.BitLen()
	case ed25519.PublicKey:
		l.KeyType = "Ed25519"
	default:
		l.KeyType = "other"
	}
	return l
}

// acceptable names the CAs that a server sends with its wish for a certificate.
func acceptable(list [][]byte) (names []string, leftOut int) {
	const most = 50
	for _, n := range parseNames(list[:min(len(list), most)]) {
		names = append(names, shown(n.String()))
	}
	return names, len(list) - len(names)
}
