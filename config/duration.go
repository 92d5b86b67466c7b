// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Duration is a time.Duration that is written with days, too: "30d", "1d12h",
// "720h", "90m", "3m30s". A day is 24 hours. What is read lies between one
// second, the resolution of a certificate's validity (RFC 5280 section
// 4.1.2.5), and 100 years. The zero value stands for "not set" and is written
// as the empty text.
type Duration time.Duration

const (
	day         = 24 * time.Hour
	minDuration = time.Second
	maxDuration = 100 * 365 * day
)

// ParseDuration reads a Duration. The text is not empty.
func ParseDuration(s string) (Duration, error) {
	days, rest, err := cutDays(s)
	if err != nil {
		return 0, err
	}
	var more time.Duration
	if rest != "" {
		if more, err = time.ParseDuration(rest); err != nil || rest[0] == '-' || rest[0] == '+' {
			return 0, fmt.Errorf("%.40q is not a duration: write it as in 30d, 720h, 90m or 1h30m", s)
		}
	}
	if more > maxDuration || days+more > maxDuration {
		return 0, fmt.Errorf("%.40q is more than 100 years (36500d)", s)
	}
	if days+more < minDuration {
		return 0, fmt.Errorf("%.40q is less than a second", s)
	}
	return Duration(days + more), nil
}

// cutDays splits "1d12h" into a day and "12h". Days stand first or not at all.
func cutDays(s string) (days time.Duration, rest string, err error) {
	if s == "" {
		return 0, "", errors.New("a duration is missing: write it as in 30d, 720h or 90m")
	}
	count, rest, ok := strings.Cut(s, "d")
	if !ok {
		return 0, s, nil
	}
	n, err := strconv.ParseUint(count, 10, 32)
	if err != nil {
		return 0, "", fmt.Errorf("%.40q is not a duration: before d stands a whole number of days, as in 30d", s)
	}
	if n > uint64(maxDuration/day) {
		return 0, "", fmt.Errorf("%.40q is more than 100 years (36500d)", s)
	}
	return time.Duration(n) * day, rest, nil
}

// String writes the duration in the largest unit that fits without a rest:
// "30d" for 720 hours, "36h", "90m", "45s". ParseDuration reads it back. The
// zero value is "0s".
func (d Duration) String() string {
	t := time.Duration(d)
	for _, unit := range []struct {
		is   time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if t%unit.is == 0 && (t != 0 || unit.name == "s") {
			return strconv.FormatInt(int64(t/unit.is), 10) + unit.name
		}
	}
	return t.String() // with a fraction of a second
}

// MarshalText writes String; nothing for the zero value.
func (d Duration) MarshalText() ([]byte, error) {
	if d == 0 {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText is ParseDuration, and the zero value for the empty text.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	if *d = 0; len(text) == 0 {
		return nil
	}
	*d, err = ParseDuration(string(text))
	return err
}
