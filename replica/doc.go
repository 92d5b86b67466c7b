// SPDX-License-Identifier: Apache-2.0

// Package replica keeps the certificates of one group in a process: it follows
// the bus, verifies, opens, writes a snapshot, and feeds a keyturn.Store.
//
//	import _ "github.com/keyturn/keyturn/bus/jetstream" // the engine of the bus
//
//	r, err := replica.Open(ctx, replica.Config{Dir: dir})
//	defer r.Close()
//	server := &http.Server{Addr: ":443", TLSConfig: r.Store().ServerConfig()}
//	err = server.ListenAndServeTLS("", "")
//
// dir is a joined directory: it says which member of which group the host is,
// where the bus is, whom to trust, and holds the keys. [Join] makes it, once for
// a host, from a token. A program that has all of that from elsewhere fills in
// [Config] itself.
//
// # Promises
//
// A replica serves from its snapshot before it has reached any bus, and goes on
// serving when bus, managers and CA are gone. [Open] waits only where there is
// no snapshot yet.
//
// An event is applied if and only if a pinned manager signed it, it is for this
// tenant and group and stands under its own key, its private key opens with the
// group's key, its (epoch, generation) is above the last one of its
// certificate, and the certificate is good. What is held may come again, also
// signed by another manager. Everything else is counted by reason, logged once,
// and left out; the stream goes on. What has no generation, the member's entry and the
// challenges of CAs, is taken unless it was signed before what was taken last, as far
// back as this process knows.
//
// Where a replica gets a certificate during catch-up and has had none of it before, there
// is nothing that a bad one could take the place of. It is served at once then, and its
// private key opened and its certificate checked at the end of catch-up, in the
// background, or by the first handshake that needs it. One that turns out to be no good
// is refused then. Until it is proven, receipts do not say that it is served.
//
// # Snapshot
//
// The snapshot is a directory of journal files, mode 0600: signed events, each
// with its place on the bus and a tag of AES-256-GCM, by a key of the file that is
// derived from the group's private key. The tag authenticates the record and its
// place in the file. So only a holder of the group's key can write a file that is
// believed, or open the private keys, which stay sealed in the events. A start
// verifies no signature and opens no key: the first handshake that needs a
// certificate opens its. A file that was cut or changed is good up to there; what
// follows is fetched from the bus again. The last three files are kept, but for those
// that only a former key of the group opens.
//
// # Challenges of CAs
//
// Where an ACME CA looks whether the group controls a name, every replica gives the
// answer that a manager has signed, until it is taken back or expires: by TLS inside of
// the Store's own configs (see keyturn.Store.SetChallenges), and by plain HTTP where
// [Replica.HTTPHandler] serves port 80. Nothing else has to be set up.
//
// # Members
//
// In a joined directory the replica follows three things more. Its member's
// entry grants the group's keys: new ones are used at once, former ones go when
// nothing here needs them, and whoever is revoked serves on what he has. The
// list of managers says whose signatures count: each is signed by one of the
// list before, so that a replica that was away finds the newest, and never an
// older one. The managers' beacons say once a minute what the group should
// hold.
//
// A replica that holds something else follows the bus from its start, once for
// each beacon: so an entry that was missed, or a bus that went back, is noticed
// within two minutes. What it holds that is newer than what the bus has is
// served on, and reported with the managers' own signatures as proof.
//
// It reports on the bus's board, signed with the member's own key: at most once
// a second when something has changed, and once a minute. Reports never hold
// anything else up. On the log it writes nothing, and it never talks to a manager
// or an issuer.
package replica
