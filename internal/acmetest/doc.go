// SPDX-License-Identifier: Apache-2.0

// Package acmetest runs a real ACME CA for tests: Pebble, Let's Encrypt's own
// test server, and its challenge test server as the DNS that it asks.
//
//	ca := acmetest.Start(t, acmetest.Options{})
//	… ca.Directory(), ca.WebRoots(), ca.DNS.TXT("_acme-challenge.example.com", value)
//
// Both run in the test's process, listen on free loopback ports and end with the
// test. Any number of them run side by side. A CA validates for real unless
// NoValidation says otherwise: [DNS.Solve] answers dns-01, and what listens on
// HTTPPort and TLSPort answers the others.
//
// One goroutine of each CA outlives it, see [IgnorePebble].
package acmetest
