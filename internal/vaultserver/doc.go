// SPDX-License-Identifier: Apache-2.0

// Package vaultserver runs HashiCorp's Vault for tests: the real server, with the
// storage, seal and cluster of its own, over TLS on loopback.
//
//	v := vaultserver.Start(t)
//	root := v.PKI(t)                                    // an intermediate CA at "pki"
//	v.Write(t, "pki/roles/web", map[string]any{"allow_any_name": true})
//	… v.Address, v.Roots, v.Token(t, policy) …
//
// The programs are built from the module in server/, which pins their versions: Vault
// and its command line as its "minimal" build has them, and the auth method for
// Kubernetes as a plugin. It is a module of its own, so that nobody who imports
// Keyturn gets what it needs, or its licence (BUSL-1.1). It is built once for a user,
// which takes five minutes on two idle cores where Go has not built its packages
// before, and lies in the user's cache directory below "keyturn-test".
package vaultserver
