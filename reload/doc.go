// SPDX-License-Identifier: Apache-2.0

// Package reload keeps certificates and CA certificates from files live: it reads
// them into a [keyturn.Store], and anew whenever the files change, with no restart.
//
//	var store keyturn.Store
//	watcher, err := reload.Watch(reload.Options{SIGHUP: true},
//		reload.KeyPair(&store, "web", "/etc/app/tls.crt", "/etc/app/tls.key"))
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer watcher.Close()
//	server := &http.Server{Addr: ":443", TLSConfig: store.ServerConfig()}
//	log.Fatal(server.ListenAndServeTLS("", ""))
//
// A [Source] is files and what they feed: [KeyPair] two files, [PEM] one file with
// both, [Directory] a directory of pairs, [CAs] a file or directory of CA certificates.
// [Watch] takes any number of them.
//
// # Promises
//
// Watch fails if any file is bad, and says all that is wrong. After that, nothing that
// happens to the files takes away what is live: a file that is half-written, junk,
// missing, unreadable, too large, or does not fit its key is logged, once for each
// distinct fault, and left alone until it is whole; that is logged too. One bad
// pair does not hold up the others.
//
// Certificate and key change together: whichever way they are written, one is never
// served with the other of another issuance. A certificate must further pass the checks
// of [keyturn.Store.Put]; one that has expired is a fault. CA certificates change as
// one set, which is never empty.
//
// Files whose certificates are the same are not put again, whatever their times say.
//
// # When
//
// The files are read on a change in the directories that lead to them, symbolic links
// and what they point to included (on Linux, by inotify); every ten seconds, for what
// that does not see, such as NFS; on SIGHUP, if asked for; and by [Watcher.Reload]. To
// see whether they changed they are read and hashed: times and sizes tell too little.
// Reading a pair takes some 40 µs: go test -run - -bench Unchanged ./reload.
//
// # How to write the files
//
// Best, to another name in the same directory, then renamed; Kubernetes renames a link to
// all of them. Files that are written in place are taken when they are whole and were
// the same twice, 10 ms apart. That a chain misses its end cannot be seen if it ends
// between two certificates for longer than that.
//
// # Encrypted keys
//
// Keys in the block ENCRYPTED PRIVATE KEY (PKCS #8, RFC 5958) are decrypted with
// [Options].Passphrase: PBES2 with PBKDF2 by HMAC with SHA-1 or SHA-2, and AES or Triple
// DES in CBC mode (RFC 8018). That is what "openssl pkcs8 -topk8" and, with a cipher,
// "openssl genpkey" write. Others, such as scrypt, are refused with the command that
// converts them. Copies of a key's bytes are overwritten after use, as far as this package
// makes them; what is served, and what crypto/tls makes of it, stays in memory.
//
// # What it is not
//
// It looks at files, not at what became of them: what others remove from a Store, or put
// there under the same id, stays so until the files change. It writes no files, obtains
// no certificates and does not tell of those that will expire. Where the files' owner
// and mode let others reach a key, it warns and goes on.
package reload
