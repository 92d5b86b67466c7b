// SPDX-License-Identifier: Apache-2.0

// Package cfsslserver runs CFSSL for tests: Cloudflare's own server, version 1.6.5,
// over TLS on loopback, with an intermediate CA that a root has signed.
//
//	s := cfsslserver.Start(t, cfsslserver.Options{Profiles: map[string]cfsslserver.Profile{"web": {Key: key}}})
//	… s.Address, s.TLSRoots, s.Root …
//
// The programs are built from the module in server/, which pins their versions: cfssl,
// cfssljson, multirootca, and goose, which makes the database. They are built once for a user,
// which takes three minutes on two idle cores where Go has not built their packages
// before, and lie in the user's cache directory below "keyturn-test".
package cfsslserver
