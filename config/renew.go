// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/schedule"
)

// A RenewBefore says how long before a certificate's end its renewal is due:
// a time ("30d", "720h") or a share of its lifetime ("33%", from 1% to 95%).
// The zero value is the default rule; it is written as the empty text.
// RenewBefores can be compared with ==.
type RenewBefore struct {
	before  time.Duration // 0 if it is a share
	percent int           // 0 if it is a time
}

const maxPercent = 95

// ParseRenewBefore reads a RenewBefore; the empty text is the default rule.
func ParseRenewBefore(s string) (RenewBefore, error) {
	if s == "" {
		return RenewBefore{}, nil
	}
	share, ok := strings.CutSuffix(s, "%")
	if !ok {
		d, err := ParseDuration(s)
		return RenewBefore{before: time.Duration(d)}, err
	}
	n, err := strconv.ParseUint(share, 10, 8)
	if err != nil || n < 1 || n > maxPercent {
		return RenewBefore{}, fmt.Errorf("%.40q is not a share of the lifetime: write a whole number from 1%% to %d%%", s, maxPercent)
	}
	return RenewBefore{percent: int(n)}, nil
}

// Of returns how long before its end a certificate with this lifetime (from its
// begin to its end) is due for renewal. The default rule is a third of the
// lifetime, or half of it if it is under ten days; it also replaces a time that
// is not shorter than the lifetime and would make every certificate due at
// once.
func (r RenewBefore) Of(lifetime time.Duration) time.Duration {
	switch {
	case r.percent > 0:
		return lifetime/100*time.Duration(r.percent) + lifetime%100*time.Duration(r.percent)/100
	case r.before > 0 && r.before < lifetime:
		return r.before
	}
	return schedule.Before(lifetime)
}

// IsZero reports whether this is the default rule.
func (r RenewBefore) IsZero() bool { return r == RenewBefore{} }

// String writes what ParseRenewBefore reads.
func (r RenewBefore) String() string {
	switch {
	case r.percent > 0:
		return strconv.Itoa(r.percent) + "%"
	case r.before > 0:
		return Duration(r.before).String()
	}
	return ""
}

// MarshalText is String.
func (r RenewBefore) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRenewBefore.
func (r *RenewBefore) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRenewBefore(string(text))
	return err
}
