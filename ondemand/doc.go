// SPDX-License-Identifier: Apache-2.0

// Package ondemand issues certificates at the handshake: the first client that asks for a
// name waits while its certificate is issued, everybody after it is served what is
// there, and before it ends it is renewed in the background.
//
//	source := &ondemand.Source{
//		Issuer:     ca,
//		CommonName: "web.internal",
//		Allow:      ondemand.Names("*.web.internal"),
//	}
//	defer source.Close()
//	server := &tls.Config{GetCertificate: source.GetCertificate}
//	client := &tls.Config{GetClientCertificate: source.GetClientCertificate}
//
// It is for the services of a company and its own CA: any [issuer.Issuer] that answers
// within a handshake. For certificates of a public CA see package acme.
//
// # What is promised
//
//   - Nothing is issued for a name that neither the configuration names nor
//     Source.Allow allows.
//   - However many ask for a name at once, one certificate is issued. That goes on
//     when the first of them has gone away.
//   - A handshake for a name whose certificate is valid never waits, and never fails:
//     not for an issuer that is down, nor for a Cache that is, nor for a renewal.
//   - A certificate has the name that was asked for, CommonName and Names, and nothing
//     else: what the issuer answered is checked with [issuer.Check].
//   - What clients can bring about is bounded: so many issuances at once and a minute,
//     so many names in memory, so many lines in the log. A name that is refused leaves
//     nothing behind.
//
// # When a certificate is renewed
//
// With Source.RenewBefore left of its life, a third of it by default, less up to a
// fiftieth of the life, so that certificates issued together are not renewed together.
// While the issuer fails, it is asked again after 1, 10, 100 minutes, then daily, but
// after a quarter of the time that is left at most. A name that nobody has asked for since
// its certificate came is not renewed, and dropped at the certificate's end;
// CommonName always is, once it was used.
//
// A name without a valid certificate is issued when it is asked for. If that fails,
// the failure is the answer for a second, then two, up to a minute, or for as long as
// the issuer says, up to an hour; then the next handshake tries again.
package ondemand
