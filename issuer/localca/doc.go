// SPDX-License-Identifier: Apache-2.0

// Package localca is the built-in CA: a private certificate authority in one
// value, for those who run none.
//
// [New] makes a root and, signed by it, an intermediate, each with a key of its
// own. The intermediate signs certificates ([CA.Issue]); the root signed the
// intermediate and is what clients are given to trust ([CA.RootPEM]).
//
//	ca, err := localca.New(localca.Config{Name: "Example"})
//	sealed, err := ca.Seal(managers, []byte("ca/default"))    // to keep
//	ca, err = localca.Open(keys, []byte("ca/default"), sealed, localca.Config{Name: "Example"})
//
// A CA never writes itself anywhere. Its keys leave it in one form only, sealed
// by [CA.Seal], and it prints under every fmt verb, in slog and in JSON as its
// name alone.
//
// What it signs is for TLS servers and clients: names, a public key and a time.
// Nothing else in a request is copied: not the subject, not a wish to be a CA. A
// wish to be for servers only, or for clients only, is heeded. It keeps no record
// of what it signed and of what is revoked: who does has it sign that list
// ([CA.CRL]).
//
// Which names it signs can be limited for good, in its certificates, and by its
// configuration: see package policy.
//
// What losing it costs: with the intermediate's key anyone can make
// certificates for any name that clients of this root will believe, until the
// intermediate ends; with the root's key, until every client has dropped the
// root. Losing the sealed text costs a new CA and a new root on every client.
package localca
