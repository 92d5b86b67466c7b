// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Rate is so many in so much time: "300/3h". The zero value is no limit, and
// is written as the empty text.
type Rate struct {
	Count int
	Per   time.Duration
}

// maxRate is above what any CA allows.
const maxRate = 1_000_000_000

// ParseRate reads a Rate: a whole number from 1, a slash and a Duration.
func ParseRate(s string) (Rate, error) {
	count, per, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil || n < 1 || n > maxRate {
		return Rate{}, fmt.Errorf("%.40q is not a rate: write how many in how much time, as in 300/3h", s)
	}
	d, err := ParseDuration(per)
	if err != nil {
		return Rate{}, fmt.Errorf("%.40q is not a rate, as in 300/3h: %w", s, err)
	}
	return Rate{Count: int(n), Per: time.Duration(d)}, nil
}

// String writes what ParseRate reads.
func (r Rate) String() string {
	if r == (Rate{}) {
		return ""
	}
	return strconv.Itoa(r.Count) + "/" + Duration(r.Per).String()
}

// MarshalText is String.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRate, and the zero value for the empty text.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	if *r = (Rate{}); len(text) == 0 {
		return nil
	}
	*r, err = ParseRate(string(text))
	return err
}

func (m *mapping) limits() *Limits {
	m.only("orders", "domain", "set", "failures")
	l := new(Limits)
	parse(m, "orders", &l.Orders, ParseRate)
	parse(m, "domain", &l.Domain, ParseRate)
	parse(m, "set", &l.Set, ParseRate)
	parse(m, "failures", &l.Failures, ParseRate)
	return l
}
