// SPDX-License-Identifier: Apache-2.0

// Package acmpcatest stands in for AWS Private CA in tests. It is not AWS: it is what
// the service's API reference says of the five calls that an issuer makes, over real
// HTTP, with signatures that are checked and certificates that are really signed.
//
//	s := acmpcatest.Start(t, acmpcatest.Options{})
//	… s.URL, s.ARN, s.Root …
//
// What other emulators have no way to show is why it is here: a certificate that is
// still being signed, throttling, a CA that is disabled, idempotency, lifetimes. Where
// the reference leaves something open, it takes the stricter reading.
package acmpcatest
