// SPDX-License-Identifier: Apache-2.0

// Package seal keeps secrets closed on their way over a bus that nobody has to
// trust, and says who sent them.
//
// Two keys do the work. A [PrivateKey] opens what was sealed to its
// [PublicKey]: HPKE (RFC 9180) in base mode with the hybrid KEM
// MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM. That suite resists a recorder
// with a later quantum computer and is allowed under GODEBUG=fips140=only. A
// [SigningKey] signs, a [VerifyKey] checks: Ed25519 (RFC 8032).
//
// WARNING: HPKE in base mode has no sender authentication: whoever knows the
// public key can seal to it. Whatever is opened must also have been signed.
//
// Every sealed text and every signature starts with a version and the id of
// the key that made it, so that keys can overlap while one replaces the other.
// Key files are PEM; those with private keys must not be accessible to their
// group or to others, and are refused if they are.
//
// Private keys print as "[redacted]" under every fmt verb, in slog and in JSON.
//
// All types are safe for concurrent use: they are never changed after they are
// made.
package seal
