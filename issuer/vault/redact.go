// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
)

// String is the role and where it is: "role web of pki at https://vault.example.com:8200".
func (c Config) String() string {
	s := "role " + c.Role + " of " + cmp.Or(c.Mount, DefaultMount)
	if c.Address != "" {
		s += " at " + c.Address
	}
	if c.Namespace != "" {
		s += " in namespace " + c.Namespace
	}
	return s
}

// Format prints what String returns whatever the verb, and so never a secret.
func (c Config) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// LogValue logs what String returns.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalText encodes what String returns, in JSON, YAML and XML alike.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String is that of its Config.
func (i *Issuer) String() string { return i.config.String() }

// Format prints what String returns whatever the verb: tokens never print.
func (i *Issuer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, i.String()) }

// LogValue logs what String returns.
func (i *Issuer) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText encodes what String returns.
func (i *Issuer) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// Format keeps the token from being printed.
func (a Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "a token") }

// MarshalText keeps the token from being encoded or logged.
func (a Token) MarshalText() ([]byte, error) { return []byte("a token"), nil }

// Format keeps the secret ID from being printed.
func (a AppRole) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "AppRole %q", a.RoleID) }

// MarshalText keeps the secret ID from being encoded or logged.
func (a AppRole) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", a), nil }

// Format keeps the token from being printed.
func (a JWT) Format(s fmt.State, _ rune) { _, _ = fmt.Fprintf(s, "JWT role %q", a.Role) }

// MarshalText keeps the token from being encoded or logged.
func (a JWT) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%v", a), nil }
