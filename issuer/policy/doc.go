// SPDX-License-Identifier: Apache-2.0

// Package policy says which certificates a private CA may sign: for which
// names, and what for.
//
// There are two kinds of limits. [Constraints] stand in the CA's certificates
// and bind whoever verifies a chain, even if the CA's key is stolen; they are
// made with the CA and cannot be changed (RFC 5280 section 4.2.1.10). [Rules]
// bind the CA alone, can be finer, and can be changed at any time.
//
// Both are made of [Names] as people write them, and asked name by name, as
// text: a DNS name, an IP address, or a URI.
package policy
