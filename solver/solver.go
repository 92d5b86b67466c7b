// SPDX-License-Identifier: Apache-2.0

// Package solver is how control of a name is proven to an ACME CA: the contract,
// [Solver]. The packages below this one answer challenges: http01 and tlsalpn01
// where a process owns the port, dns through a DNS service. Replicas answer over
// the bus: that is the manager's and theirs.
package solver

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"time"
)

// Types of challenges.
const (
	HTTP01    = "http-01"     // RFC 8555 section 8.3
	DNS01     = "dns-01"      // RFC 8555 section 8.4
	TLSALPN01 = "tls-alpn-01" // RFC 8737
)

// Types returns all types, dns-01 last: it needs the most.
func Types() []string { return []string{HTTP01, TLSALPN01, DNS01} }

// A Challenge is what a CA asks of whoever controls a name.
type Challenge struct {
	// Type is one of Types.
	Type string
	// Name is a DNS name in A-labels, lower case, without trailing dot and without
	// "*.", or an IP address in the form of netip.Addr.
	Name string
	// Token and KeyAuthorization are those of RFC 8555 section 8.1. They are no
	// secrets. The token comes from the CA: whoever makes a path of it checks it.
	Token, KeyAuthorization string
	// Group is whose replicas serve the name.
	Group string
	// Expires is when the CA stops to ask; zero if it did not say.
	Expires time.Time
}

// DNSValue is the text of the TXT record that answers a dns-01 challenge (RFC
// 8555 section 8.4).
func (c Challenge) DNSValue() string {
	h := sha256.Sum256([]byte(c.KeyAuthorization))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// A Solver makes the answer to challenges available. Its methods may be called
// by any number of goroutines at once, for one name, too.
type Solver interface {
	// Solve returns when the CA can be asked to look: everyone whom it may ask has
	// the answer. Done takes the answer away again and must be called, whatever
	// became of the challenge; its error is not that of the challenge. After an
	// error nothing is left behind, and done is nil.
	Solve(ctx context.Context, c Challenge) (done func(context.Context) error, err error)
}
