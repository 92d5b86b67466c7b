// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"fmt"
	"strings"
)

// A Reason is why a certificate is revoked: a CRLReason of RFC 5280 section
// 5.3.1. The zero value gives none.
type Reason int

// The reasons that a subscriber may give (CA/Browser Forum Baseline
// Requirements section 4.9.1.1).
const (
	Unspecified          Reason = 0
	KeyCompromise        Reason = 1
	AffiliationChanged   Reason = 3
	Superseded           Reason = 4
	CessationOfOperation Reason = 5
	PrivilegeWithdrawn   Reason = 9
)

var reasons = []struct {
	reason Reason
	name   string
}{
	{Unspecified, "unspecified"},
	{KeyCompromise, "key-compromise"},
	{AffiliationChanged, "affiliation-changed"},
	{Superseded, "superseded"},
	{CessationOfOperation, "cessation-of-operation"},
	{PrivilegeWithdrawn, "privilege-withdrawn"},
}

// ParseReason reads a reason's name: "key-compromise".
func ParseReason(s string) (Reason, error) {
	for _, r := range reasons {
		if s == r.name {
			return r.reason, nil
		}
	}
	return 0, fmt.Errorf("unknown reason %q: use one of %s", s, strings.Join(ReasonNames(), ", "))
}

// ReasonNames lists what ParseReason reads.
func ReasonNames() []string {
	var names []string
	for _, r := range reasons {
		names = append(names, r.name)
	}
	return names
}

// String returns the reason's name.
func (r Reason) String() string {
	for _, known := range reasons {
		if r == known.reason {
			return known.name
		}
	}
	return fmt.Sprintf("reason %d", int(r))
}
