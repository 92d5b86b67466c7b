// SPDX-License-Identifier: Apache-2.0

// Package doctor says why a TLS handshake fails, and what to do about it.
//
// [Examine] connects to a server, looks at everything that it shows, verifies it
// as a client would, and returns a [Report]: how far it came, the chain from the
// leaf to the root, and findings, each with a cause and a remedy.
//
//	report := doctor.Examine(ctx, "www.example.com:443", doctor.Options{})
//	fmt.Print(report)
//	if report.Failed() {
//		os.Exit(1)
//	}
//
// [Explain] does the same for an error at hand: one that a dial returned, or that
// a server found, or the text of a line in a server's log.
//
// # What it finds
//
// A [Cause] is a word that stays the same and can be branched on:
//
//	unknown-authority      nothing in the pool of roots has signed the chain
//	incomplete-chain       the server does not send an intermediate
//	expired                and not-yet-valid: leaf, intermediate or root
//	name-mismatch          the certificate is for other names
//	unknown-name           the server has no certificate for the name asked for
//	missing-eku            the extended key usage does not allow this use
//	no-client-certificate  the server wants one and got none
//	wrong-pool             the server does not know the CA of the client's one
//	stale                  a rotation was not taken over, see below
//
// The constants have the others. A finding is an error if a client that does what
// RFC 5280 and RFC 9525 say refuses the connection, or the server does or ought to; a
// warning if some clients do, or soon will; else a note.
//
// # A rotation that was not taken over
//
// A TLS connection keeps the certificate that it was made with. So there are two
// reasons why the old one is still seen. Either the process serves the old one to
// new connections too: give the certificate that ought to be served as Expect, and
// Examine says so. Or new connections get the new one, and the connection is older
// than the rotation, or resumed a session that is: [Report.Compare] tells that from
// the state of the connection in question.
//
// # Unknown authority or incomplete chain
//
// A chain that ends below an issuer that is neither sent nor in the pool looks the same
// whether that issuer is an unknown root or an intermediate that is not sent. It
// is taken for an incomplete chain if one of these holds, in this order, and else
// for an unknown authority; the remedy names the other where it may be that.
//
//   - The server sends other CA certificates, none of which signed the leaf.
//   - The leaf comes alone, and says where its issuer's certificate can be had
//     (caIssuers, RFC 5280, section 4.2.2.1): roots have no need of that.
//   - The leaf comes alone, and the missing issuer calls itself an intermediate or
//     issuing CA.
//   - The leaf comes alone, and a CA in the pool is of the same organization as the
//     missing issuer, under another name.
//
// # What it is not
//
// It opens one or two connections, sends nothing over them but the handshake, and
// fetches nothing else: a URL in a certificate is named, not followed. It does not ask
// whether a certificate is revoked, does not try what ciphers a server has, and speaks
// no STARTTLS; Options.Dial can. With TLS 1.3 a server can refuse after the handshake:
// that is waited for only if it asked for a client certificate.
//
// What a server sends is hostile until it is known better. Every string of it in a
// report or finding is cut and has what a terminal could take for a command escaped,
// as [strconv.Quote] does. No private key and no part of one is in a report.
package doctor
