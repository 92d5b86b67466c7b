// SPDX-License-Identifier: Apache-2.0

package dns

import (
	"fmt"
	"io"
)

// hidden stands for what does not print, as it does in the manager's configuration.
const hidden = "(not shown)"

// A Secret is a setting of a service that never prints, whatever the verb, and is
// neither logged nor encoded as text, JSON or YAML: "(not shown)" stands for it, and ""
// for one that is empty. A string is converted to it and back.
//
// Package fmt asks no field how it prints that is not exported. What keeps a Secret in
// one has to say itself how the whole prints.
type Secret string

// Format prints what MarshalText encodes.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hide(len(s))) }

// MarshalText encodes "(not shown)", or nothing of an empty Secret. The error is nil.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hide(len(s))), nil }

// Secrets are several that of which no more prints than of a [Secret]: not even how many they are.
type Secrets []string

// Format prints what MarshalText encodes.
func (s Secrets) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hide(len(s))) }

// MarshalText encodes "(not shown)", or nothing if there are none. The error is nil.
func (s Secrets) MarshalText() ([]byte, error) { return []byte(hide(len(s))), nil }

func hide(n int) string {
	if n == 0 {
		return ""
	}
	return hidden
}
