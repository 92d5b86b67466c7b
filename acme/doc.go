// SPDX-License-Identifier: Apache-2.0

// Package acme gives one Go server certificates of a public CA, or of any other that
// speaks ACME (RFC 8555), and renews them while it runs, without a bus and without a
// manager:
//
//	listener, err := acme.Listen("example.com", "www.example.com")
//	…
//	log.Fatal(http.Serve(listener, handler))
//
// [Listen] is for port 443 and Let's Encrypt. Everything else is in a [Config]:
//
//	server, err := acme.Config{
//		Names: []string{"example.com"}, TermsAgreed: true, Dir: "/var/lib/example/acme",
//	}.Open(ctx)
//	…
//	defer server.Close()
//	https := &http.Server{Addr: ":443", TLSConfig: server.TLSConfig(), Handler: handler}
//	log.Fatal(https.ListenAndServeTLS("", ""))
//
// # What is obtained
//
// One certificate for all of Names, and for nothing else: no handshake ever makes the
// CA be asked for anything. A handshake for another name is refused.
//
// The CA finds out that the process controls the names by the port that it serves:
// tls-alpn-01 is answered within the TLS of the process itself, so port 443 has to lead
// here from everywhere. Where it does not, http-01 is answered by [Server.HTTPHandler]
// on port 80, and any other [solver.Solver] can be given, as for wildcards.
//
// # At the start
//
// [Config.Open] does not wait for the CA. A certificate that is kept from before is
// served at once, also while the CA is down. At the very first start handshakes wait
// until the certificate is there, some seconds as a rule. When it cannot be had, they
// are refused, the Logger says why and when it is tried again, and so does
// [Server.Status]; [Server.Wait] is for a program that would rather end.
//
// # Renewal
//
// The CA is asked when it wants renewals to happen (RFC 9773), and that is when they
// do, spread over the time that it suggests. A CA that does not say is asked when a
// third of the lifetime is left, or half of one below ten days. Config.RenewBefore makes
// it sooner.
//
// A failure is tried again after 1, 10 and 100 minutes, then daily, and sooner as the end
// comes; a restart changes nothing about that. The order and its key are kept before the
// CA is asked to sign, so that a process that ends at any point goes on with the same
// order and never has two certificates for one renewal. What is served is replaced
// between two handshakes; open connections stay.
//
// # What is kept
//
// In Dir, which is made with mode 0700, all files with mode 0600, each replaced as a
// whole: the account at the CA; and under the first of the names the certificate with
// its chain and key in one PEM file, the state (order, failure, times) in another, and a
// lock. One of the processes that use a directory renews; the others serve what it
// writes, and one takes over when it ends. A challenge that reaches another of them on
// the port that they share fails, and is tried again.
//
// Changing Names keeps the old certificate in use until the new one is there, as long as
// the first name stays.
//
// Instead of a directory any cache that was written for golang.org/x/crypto/acme/autocert
// can be given: see [Cache].
package acme
