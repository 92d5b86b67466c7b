// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// The keys of Store.names. None but those of DNS names begins with a byte that a
// server name may begin with, so that none can be asked for from outside:
//
//	example.com      that name
//	.example.com     *.example.com
//	\x00 and 16 byte an IP address, IPv4 as IPv4-mapped IPv6

const (
	maxName  = 253 // RFC 1035, section 2.3.4: 255 on the wire
	maxLabel = 63
)

type addrKey [17]byte

func keyOfAddr(ip netip.Addr) (k addrKey) {
	b := ip.As16()
	copy(k[1:], b[:])
	return k
}

// keyOf returns the key of a name as it stands in a certificate: an A-label name in any
// case, a wildcard for one whole label (RFC 9525, section 6.3), or an IP address. It
// reports false if it is none of these, as in that case no server name can match it.
func keyOf(name string) (string, bool) {
	if ip, err := netip.ParseAddr(name); err == nil && ip.Zone() == "" {
		k := keyOfAddr(ip)
		return string(k[:]), true
	}
	base := strings.TrimPrefix(name, "*.")
	if !validName(base) {
		return "", false
	}
	if len(base) != len(name) {
		name = name[1:]
	}
	return strings.ToLower(name), true
}

// nameOf is the inverse of keyOf.
func nameOf(key string) string {
	switch key[0] {
	case '.':
		return "*" + key
	case 0:
		return netip.AddrFrom16([16]byte([]byte(key[1:]))).Unmap().String()
	}
	return key
}

// validName reports whether name is a DNS name without a trailing dot, in any case.
func validName(name string) bool {
	if len(name) > maxName || !isASCII(name) { // some others have a lower case in ASCII
		return false
	}
	last := ""
	for label := range strings.SplitSeq(strings.ToLower(name), ".") {
		if !isLabel(label) {
			return false
		}
		last = label
	}
	// What ends in a number is an IPv4 address, or looks like one.
	return strings.Trim(last, "0123456789") != ""
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > unicode.MaxASCII })
}

// isLabel reports whether label is one of a DNS name in lower case. Underscores are
// allowed, as in crypto/x509.
func isLabel(label string) bool {
	if label == "" || len(label) > maxLabel || label[0] == '-' {
		return false
	}
	other := byte(0)
	for i := range len(label) {
		other |= notInLabel[label[i]]
	}
	return other == 0
}

// notInLabel is 0 for the bytes that a label in lower case may have, else 1.
var notInLabel = func() (table [256]byte) {
	for c := range table {
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			table[c] = 1
		}
	}
	return table
}()

// hasUpper reports whether name has an upper-case letter of ASCII.
func hasUpper(name string) bool {
	for ; len(name) > 8; name = name[8:] {
		if upperBytes(word(name)) != 0 {
			return true
		}
	}
	return name != "" && upperBytes(lastWord(name)) != 0
}

// upperBytes sets the top bit of each byte of x that is an upper-case letter of ASCII.
func upperBytes(x uint64) uint64 {
	// In each byte, the sums have the top bit if its low 7 bits are at least 'A', and
	// above 'Z'.
	low := x &^ topBits
	return (low + (0x80-'A')*eachByte) &^ (low + (0x7f-'Z')*eachByte) &^ x & topBits
}

// word is the first 8 bytes of s.
func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// lastWord is the 1 to 8 bytes of s, filled up with the first of them. Lengths
// differ from name to name: a loop over them would be a branch that nothing predicts.
func lastWord(s string) uint64 {
	switch n := len(s); {
	case n == 8:
		return word(s)
	case n >= 4:
		head := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
		tail := uint64(s[n-4]) | uint64(s[n-3])<<8 | uint64(s[n-2])<<16 | uint64(s[n-1])<<24
		return head | tail<<32
	default:
		// The first, the middle and the last are all there are.
		x := uint64(s[0]) | uint64(s[n/2])<<8 | uint64(s[n-1])<<16
		return x | x<<24 | (x&0xffff)<<48
	}
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// keysOf returns the keys of a leaf's names, each once.
func keysOf(leaf *x509.Certificate) []string {
	keys := make([]string, 0, len(leaf.DNSNames)+len(leaf.IPAddresses))
	for _, name := range leaf.DNSNames {
		// An address among the DNS names counts for nothing (RFC 9525, section 6.5).
		if key, ok := keyOf(name); ok && key[0] != 0 {
			keys = append(keys, key)
		}
	}
	for _, ip := range leaf.IPAddresses {
		if ip, ok := netip.AddrFromSlice(ip); ok {
			k := keyOfAddr(ip)
			keys = append(keys, string(k[:]))
		}
	}
	return distinct(keys)
}

// keysOfNames returns the keys of names that come from elsewhere, each once.
func keysOfNames(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	keys := make([]string, 0, len(names))
	for _, name := range names {
		key, ok := keyOf(strings.TrimSuffix(name, "."))
		if !ok {
			return nil, fmt.Errorf("%w: %.255q is neither a DNS name in ASCII, nor a wildcard for a first label, nor an IP address", ErrBadName, name)
		}
		keys = append(keys, key)
	}
	return distinct(keys), nil
}

func distinct(keys []string) []string {
	if len(keys) < 2 {
		return keys
	}
	seen := make(map[string]bool, len(keys))
	return slices.DeleteFunc(keys, func(key string) bool {
		again := seen[key]
		seen[key] = true
		return again
	})
}
