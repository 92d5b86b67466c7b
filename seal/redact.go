// SPDX-License-Identifier: Apache-2.0

package seal

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted, embedded by value, keeps a secret out of every log, error and
// answer: no verb, no handler and no encoder sees more than the word.
type redacted struct{}

const redactedText = "[redacted]"

// Format prints "[redacted]" whatever the verb.
func (redacted) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redactedText) }

// LogValue logs "[redacted]".
func (redacted) LogValue() slog.Value { return slog.StringValue(redactedText) }

// MarshalText encodes "[redacted]", in JSON, YAML and XML alike.
func (redacted) MarshalText() ([]byte, error) { return []byte(redactedText), nil }
