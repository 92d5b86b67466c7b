// SPDX-License-Identifier: Apache-2.0

// Package keyturn keeps the TLS certificates of a process, and whom it trusts, and
// changes them while it runs: no restart, no lost connection, no handshake that
// sees half of a change.
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
// the same id. Package reload does that for files. A TLS client takes
// [Store.ClientConfig] instead.
//
// For mutual TLS, and for roots that change, put a [Trust] beside the Store. A
// [CertAuthManager] is both, for one certificate:
//
//	var trust keyturn.Trust
//	trust.SetClientCAs(pool)
//	trust.SetClientAuth(tls.RequireAndVerifyClientCert)
//	server := &http.Server{Addr: ":443", TLSConfig: trust.ServerConfig(store.ServerConfig())}
//
//	config := store.ClientConfig(trust.ClientConfig("db.internal")) // of a client
//
// Use a Store and a Trust of its own for each listener and each destination.
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
// # Challenges of CAs
//
// A Store answers tls-alpn-01 challenges (RFC 8737) beside its certificates: see
// [Store.SetChallenges].
//
// # Trust and resumed sessions
//
// crypto/tls lets a session that was made once be resumed for seven days. With the
// configs of [Trust], what was changed holds for such handshakes as well: servers
// resume no session from before a change of whom they believe, and clients verify
// the server's certificate, which the session keeps, at every handshake anew.
//
// Servers get a config for each change, by GetConfigForClient. What is to be set in
// it is set before, in what is given to [Trust.ServerConfig]. Clients verify in
// VerifyConnection, since the RootCAs of a config in use cannot change; do not
// set that of a config of [Trust.ClientConfig].
//
// # Open connections
//
// A connection keeps the certificate that it was made with, and lives as long as
// its peers let it. [Store.Drain] ends those that still use an old one, for
// connections that the Store knows by [Store.Listener] or [Store.Dialer].
// [Store.Compromised] ends them at once, and resumption with them.
//
// # When a handshake fails
//
// The first column is what is logged or returned, at the side that refuses. The
// other side sees no more than an alert; "keyturn doctor HOST:PORT", or package
// doctor, finds the cause from there.
//
//	none covers server name "…"        No certificate has the name that the client asked
//	                                   for: put one, or set a default. A wildcard covers
//	                                   one label: *.example.com is not a.b.example.com.
//	there is none at all               Nothing was put, or all of it was refused: observe
//	                                   the Store, which says why.
//	client sent no server name         It connected to an address: put a certificate with
//	                                   that IP address in it, or set a default.
//	signed by unknown authority        The pool lacks the root (wrong pool), or the peer
//	                                   sends no intermediate (incomplete chain).
//	has expired or is not yet valid    Not renewed, or not taken over, or one of the
//	                                   clocks is wrong. Store.Info says what is held.
//	valid for …, not …                 The server has another name than the client
//	                                   expects: set it with ClientConfig or SetServerName.
//	incompatible key usage             The certificate lacks the extended key usage
//	                                   serverAuth, or clientAuth for clients. Public CAs
//	                                   issue no clientAuth any more: use a private CA.
//	client didn't provide a            The client has none, or none that the server would
//	certificate                        accept: issued by one of the client CAs, with
//	                                   clientAuth. Remote: certificate required.
//	there are no client CAs            SetClientAuth asks for verified clients before
//	                                   SetClientCAs said by whom.
//	the server's name is not known     ClientConfig("") and an IP address: use Dialer.
//	not of an accepted peer            The certificate is good, and its names are not
//	                                   among those of SetPeerNames.
//	an old certificate is still seen   On a connection from before the change: Drain it.
//	                                   Otherwise it was not put: observe the Store, which
//	                                   says Refused, and why.
//	HTTP/2 is gone                     NextProtos was not set in what was given to
//	                                   Trust.ServerConfig.
//
// # What it is not
//
// The package obtains no certificates, reads no files and opens no connections but
// those of its Dialers. It does not check revocation. A Store does not ask whether
// anyone trusts the root of a chain: a private CA's certificates are as good as
// public ones.
package keyturn
