// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/keyturn/keyturn/config"
)

const day = 24 * time.Hour

func TestParseDuration(t *testing.T) {
	for in, want := range map[string]struct {
		is    time.Duration
		shown string
	}{
		"30d":       {30 * day, "30d"},
		"720h":      {30 * day, "30d"},
		"36h":       {36 * time.Hour, "36h"},
		"1d12h":     {36 * time.Hour, "36h"},
		"90m":       {90 * time.Minute, "90m"},
		"1h30m":     {90 * time.Minute, "90m"},
		"60m":       {time.Hour, "1h"},
		"45s":       {45 * time.Second, "45s"},
		"1.5h":      {90 * time.Minute, "90m"},
		"1s":        {time.Second, "1s"},
		"1500ms":    {1500 * time.Millisecond, "1.5s"},
		"36500d":    {36500 * day, "36500d"},
		"0d1h":      {time.Hour, "1h"},
		"90d0h":     {90 * day, "90d"},
		"1d1h1m1s":  {day + time.Hour + time.Minute + time.Second, "90061s"},
		"876000h0m": {36500 * day, "36500d"},
	} {
		got, err := config.ParseDuration(in)
		if err != nil || time.Duration(got) != want.is || got.String() != want.shown {
			t.Errorf("%s: %s, %v; want %s", in, got, err, want.shown)
		}
	}
	for in, says := range map[string]string{
		"":                       "missing",
		"30":                     "not a duration",
		"0":                      "less than a second",
		"0d":                     "less than a second",
		"999ms":                  "less than a second",
		"-1h":                    "not a duration",
		"+1h":                    "not a duration",
		"1d-1h":                  "not a duration",
		"-1d":                    "whole number of days",
		"1.5d":                   "whole number of days",
		"d":                      "whole number of days",
		"1 d":                    "whole number of days",
		"1d 1h":                  "not a duration",
		"1h1d":                   "whole number of days",
		"1d1d":                   "not a duration",
		"1w":                     "not a duration",
		"36501d":                 "100 years",
		"36500d1s":               "100 years",
		"36499d876000h":          "100 years",
		"876001h":                "100 years",
		"99999999999d":           "not a duration",
		"4294967295d":            "100 years",
		"2562047h47m16s":         "100 years",
		"9999999999999h":         "not a duration",
		strings.Repeat("9", 1e5): "not a duration",
	} {
		if got, err := config.ParseDuration(in); err == nil || got != 0 || !strings.Contains(err.Error(), says) || len(err.Error()) > 200 {
			t.Errorf("%.40s: %s, %v; want %q", in, got, err, says)
		}
	}
}

func TestRenewBefore(t *testing.T) {
	const h = time.Hour
	for _, test := range []struct {
		in             string
		lifetime, want time.Duration
	}{
		{"", 90 * day, 30 * day},
		{"", 10 * day, 80 * h},
		{"", 10*day - 2, 5*day - 1},
		{"", 6 * day, 3 * day},
		{"", 3 * time.Minute, 90 * time.Second},
		{"30d", 90 * day, 30 * day},
		{"720h", 90 * day, 30 * day},
		{"30d", 30 * day, 10 * day}, // every certificate would be due at once: the default rule
		{"30d", day, 12 * h},
		{"33%", 100 * day, 33 * day},
		{"50%", 3 * time.Minute, 90 * time.Second},
		{"1%", 36500 * day, 365 * day},
		{"95%", 36500 * day, 34675 * day},
		{"95%", 99, 94},
		{"33%", 0, 0},
		{"", 0, 0},
	} {
		r, err := config.ParseRenewBefore(test.in)
		if got := r.Of(test.lifetime); err != nil || got != test.want {
			t.Errorf("%q of %s: %s, %v; want %s", test.in, test.lifetime, got, err, test.want)
		}
		if r.IsZero() != (test.in == "") {
			t.Errorf("%q: IsZero is %v", test.in, r.IsZero())
		}
	}
	for _, in := range []string{"0%", "96%", "100%", "-1%", "1.5%", "%", "33 %", "33", "300%", "30%d", "abc"} {
		if r, err := config.ParseRenewBefore(in); err == nil || !r.IsZero() {
			t.Errorf("%q: read as %s", in, r)
		}
	}
}

// TestTextRoundTrip has whatever was read written and read again.
func TestTextRoundTrip(t *testing.T) {
	type both struct {
		D config.Duration
		R config.RenewBefore
	}
	rapid.Check(t, func(t *rapid.T) {
		var in both
		seconds := rapid.Int64Range(0, int64(36500*day/time.Second))
		in.D = config.Duration(time.Duration(seconds.Draw(t, "d")) * time.Second)
		text := rapid.SampledFrom([]string{"", "1%", "95%", in.D.String()}).Draw(t, "r")
		if text != "0s" {
			if err := in.R.UnmarshalText([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out both
		if err := json.Unmarshal(b, &out); err != nil || out != in {
			t.Fatalf("%+v became %s and %+v, %v", in, b, out, err)
		}
	})
}
