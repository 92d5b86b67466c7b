// SPDX-License-Identifier: Apache-2.0

// Package archive is a log in a file: what `keyturn bus export` writes, what a
// running manager keeps as its snapshot, and what a log is rebuilt from.
//
// [NewWriter] writes one, [NewReader] reads one, and [Verify] checks all there is
// to check, with nothing but the managers' public keys. All of them stream: a file
// may hold more than fits into memory. An archive holds entries as they stand on
// the bus, signed and sealed, and so no private key that can be read: it is worth
// as much as a copy of the bus's own files.
//
// # Format
//
// A file is the eight bytes "KTLOG1\r\n" and records. A record is the length of
// the rest (4 bytes, big-endian), a kind (1 byte) and a body:
//
//	head   H   the first record: JSON, see Head
//	entry  E   length of the position (2), the position's text, length of the
//	           key (1), the key, the data
//	seal   S   number of entries so far (8), SHA-256 (32), signature block of
//	           package seal
//
// The SHA-256 is that of all bytes since the seal before, that one included, or
// since the start of the file; the signature, by a manager, is over the number and
// the SHA-256. So the last seal vouches for everything before it. An export has
// one, at its end. A snapshot grows, and has one wherever it was on the disk: a
// file that was cut, or damaged, is good up to its last good seal. Where a key
// stands there more than once, what counts is up to the reader.
package archive
