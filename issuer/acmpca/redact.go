// SPDX-License-Identifier: Apache-2.0

package acmpca

import (
	"fmt"
	"io"
	"log/slog"
)

// String is the CA's ARN.
func (c Config) String() string { return c.ARN }

// String is that of its Config.
func (i *Issuer) String() string { return i.config.String() }

// Format prints what String returns whatever the verb: credentials never print.
func (i *Issuer) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, i.String()) }

// LogValue logs what String returns.
func (i *Issuer) LogValue() slog.Value { return slog.StringValue(i.String()) }

// MarshalText encodes what String returns.
func (i *Issuer) MarshalText() ([]byte, error) { return []byte(i.String()), nil }
