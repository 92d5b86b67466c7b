// SPDX-License-Identifier: Apache-2.0

// Package issuer is where Keyturn meets a certificate authority: what goes to
// it, what comes back, and what is done with the answer before anyone relies
// on it.
//
// The way of a certificate is always the same:
//
//	key, err := issuer.KeyType("").Generate()           // ECDSA P-256
//	csr, err := issuer.NewRequest(key, []string{"www.example.com", "10.0.0.1"})
//	chain, err := ca.Issue(ctx, csr, 0)                 // any Issuer
//	leaf, err := issuer.Check(chain, csr, time.Now())   // as a client would
//
// An [Issuer] signs. Its sub-packages each speak to one kind of CA; localca is
// a CA of its own. Package issuertest holds them all to this contract.
//
// [Check] trusts no CA: an answer for another key, with other names, out of
// date, for another use or in a chain that does not link is an error, whoever
// gave it. Whether the chain ends at a root that clients trust it does not say;
// only clients know that.
//
// The package uses nothing outside the standard library, starts no goroutine
// and keeps no state.
package issuer
