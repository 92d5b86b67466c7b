// SPDX-License-Identifier: Apache-2.0

// Package keyturn keeps the TLS certificates of a process and changes them
// while it runs: no restart, no lost connection, no handshake that sees half
// of a change.
//
// Make a [Store] (its zero value is ready), put certificates into it, and give
// its GetCertificate to a [crypto/tls.Config]:
//
//	var store keyturn.Store
//	if err := store.PutPEM("web", chain, key); err != nil {
//		log.Fatal(err)
//	}
//	server := &http.Server{Addr: ":443", TLSConfig: store.ServerConfig()}
//	log.Fatal(server.ListenAndServeTLS("", ""))
//
// Whenever a newer certificate is at hand, from whatever source, put it under
// the same id. A TLS client gives GetClientCertificate to its config instead.
//
// # Promises
//
// A certificate is checked before it is swapped: its key fits, it is valid
// now, it may be used for TLS, and its chain links. One that fails is refused
// with an error that says why, and what was served stays served.
//
// Every handshake that starts after [Store.Put] returned gets the new
// certificate. A handshake that runs at the same time gets the old one or the
// new one, whole: never the key of one with the chain of the other. Connections
// that are open keep the certificate they were made with.
//
// A server's choice takes no lock, allocates nothing, and takes no longer with many
// names than finding one in a map. There are three exceptions. The first handshake
// that needs a certificate held as [Lazy] opens it, and others that need it too wait
// for that. Where several certificates cover one name, crypto/tls is asked which of
// them the client supports, and that allocates. Refusing an unknown name allocates
// the error.
//
// Changing one certificate costs what that certificate costs, however many
// others are held.
//
// # Which certificate
//
// A certificate is held under an id, which the caller chooses and keeps over
// renewals, and is found by the names in it. The server name that the client
// sent (RFC 6066, section 3) is looked up exactly, then with its first label
// replaced by a wildcard (RFC 9525, section 6.3). A client that sent none gets
// the certificate that covers the address it connected to. What is not found
// gets the default, see [Store.SetDefault], and without one the handshake is
// refused with an [UnknownNameError].
//
// Where more than one id covers the name, the order is: supported by the
// client, valid now, ECDSA or Ed25519 before RSA, obtained last. So an RSA and
// an ECDSA certificate for the same name are simply put under two ids.
//
// Names are compared as they stand on the wire: lower case, in ASCII.
// Internationalised names are A-labels ("xn--…") here; convert them where they
// come in.
//
// # What it is not
//
// The package obtains no certificates, reads no files and speaks to no network.
// It does not verify peers. It does not check revocation, and it does not ask
// whether anyone trusts the root of a chain: a private CA's certificates are as
// good as public ones.
package keyturn
