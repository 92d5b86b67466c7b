// SPDX-License-Identifier: Apache-2.0

package keyturn

import (
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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

// validName reports whether name is a DNS name without a trailing dot. Underscores are
// allowed, as in crypto/x509. A last label of digits only is not: such a name is, or
// looks like, an IPv4 address.
func validName(name string) bool {
	if len(name) > maxName {
		return false
	}
	digits := false
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' {
			return false
		}
		digits = true
		for i := range len(label) {
			c := label[i]
			if !isLabelByte(lower(c)) {
				return false
			}
			digits = digits && '0' <= c && c <= '9'
		}
	}
	return !digits
}

// isLabelByte reports whether a label in lower case may have c, the first place aside,
// where '-' is not allowed.
func isLabelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
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
