// SPDX-License-Identifier: Apache-2.0

// Package acme is an issuer that speaks ACME (RFC 8555): the protocol of Let's
// Encrypt, ZeroSSL, Google Trust Services and of many private CAs.
//
//	account, err := acme.NewAccount()             // written down before it is used
//	ca, err := acme.New(acme.Config{
//		Name: "letsencrypt", Directory: acme.Presets["letsencrypt"].Directory,
//		TermsAgreed: true, Account: account, Solve: solve,
//	})
//	account, err = ca.Register(ctx)               // or left to the first order
//	chain, err := ca.Order(ctx, issuer.OrderRequest{CSR: csr, Record: record})
//
// Beside RFC 8555 it knows tls-alpn-01 (RFC 8737), IP addresses (RFC 8738), CAA
// records with account and method (RFC 8659, RFC 8657), renewal information (RFC
// 9773) and profiles (draft-aaron-acme-profiles).
//
// # What a CA cannot do to it
//
// Everything goes over https, redirects and the addresses in the CA's own answers
// included. An answer has at most [MaxAnswer] bytes, a request ends after a
// limit of its own, and so does each thing that is waited for. What a CA says is
// cut and made one line before it becomes part of an error. A Retry-After is obeyed
// as far as [MaxRetryAfter].
//
// # Errors
//
// What the CA said is an [issuer.Problem]. It is wrapped in an [issuer.OrderError]
// once there is an order, in an [issuer.Hint] where the CA said when to ask again,
// and together with [issuer.ErrRefused] where asking again is of no use. No error
// has a key, a key authorisation or an external account's key in it.
package acme
