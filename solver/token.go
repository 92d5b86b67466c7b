// SPDX-License-Identifier: Apache-2.0

package solver

import (
	"errors"
	"strings"
)

// Bounds of a token's length, in bytes: 128 bits in base64url, and more than any CA
// is known to give.
const (
	minToken = 22
	maxToken = 128
)

// CheckToken returns an error unless s can be the token of a challenge: at least 128
// bits in base64url (RFC 8555 section 8.1). Such a token is safe as the last part of
// a path.
func CheckToken(s string) error {
	other := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}
	if len(s) < minToken || len(s) > maxToken || strings.ContainsFunc(s, other) {
		return errors.New("the token of the challenge is not 22 to 128 of A-Z a-z 0-9 _ -, as RFC 8555 has it: nothing is answered with it")
	}
	return nil
}
