// SPDX-License-Identifier: Apache-2.0

package cfssl

import (
	"fmt"
	"io"
	"log/slog"
)

// String is the profile and where it is: "profile web at https://ca.example.com:8888".
func (c Config) String() string {
	s := "the default profile"
	if c.Profile != "" {
		s = "profile " + c.Profile
	}
	if c.Label != "" {
		s += " of " + c.Label
	}
	return s + " at " + c.Address
}

// Format prints what String returns whatever the verb, and so never the key.
func (c Config) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue logs what String returns.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText encodes what String returns, in JSON, YAML and XML alike.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String is that of its Config.
func (i *Issuer) String() string { return i.config.String() }

// Format prints what String returns whatever the verb: the key never prints.
func (i *Issuer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, i.String()) }

// LogValue logs what String returns.
func (i *Issuer) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText encodes what String returns.
func (i *Issuer) MarshalText() ([]byte, error) { return []byte(i.String()), nil }
