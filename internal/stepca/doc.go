// SPDX-License-Identifier: Apache-2.0

// Package stepca runs step-ca, Smallstep's CA, for tests: an ACME CA that shares no
// code with Pebble. It has neither renewal information nor profiles, and says
// nothing of itself in its directory.
//
//	ca := stepca.Start(t, stepca.Options{DNS: dns.Addr(), TLSPort: port})
//	… ca.Directory(), ca.WebRoots() …
//
// The program is built from the module in server/, which pins its versions; it is a
// module of its own, so that nobody who imports Keyturn gets what it needs. It is
// built once for a user, which takes one to two minutes where Go has not built its
// packages before, and lies in the user's cache directory below "keyturn-test".
package stepca
