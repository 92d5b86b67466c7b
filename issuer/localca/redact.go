// SPDX-License-Identifier: Apache-2.0

package localca

import (
	"fmt"
	"io"
	"log/slog"
)

// String returns the root's common name.
func (ca CA) String() string {
	if ca.root.cert == nil {
		return "no CA"
	}
	return ca.root.cert.Subject.CommonName
}

// Format prints what String returns whatever the verb: the keys never print.
func (ca CA) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, ca.String()) }

// LogValue logs what String returns.
func (ca CA) LogValue() slog.Value { return slog.StringValue(ca.String()) }

// MarshalText encodes what String returns, in JSON, YAML and XML alike.
func (ca CA) MarshalText() ([]byte, error) { return []byte(ca.String()), nil }

// Format keeps an authority that is printed by itself from showing its key.
func (authority) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[redacted]") }
