// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/certchain"
)

// chainOf returns the chain in the answer of sign/ROLE: the certificate and, from
// ca_chain, or issuing_ca where that is empty, each that signed the one before it, up
// to the root, which is left out.
func chainOf(data map[string]any) ([][]byte, error) {
	text, err := pemText(data["certificate"])
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	leaf, err := certchain.One(text)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	from := "ca_chain"
	if text, err = pemText(data[from]); err == nil && text == "" {
		from = "issuing_ca"
		text, err = pemText(data[from])
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	cas, err := certchain.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return certchain.Link(leaf, cas)
}

// pemText is a field that is one text or several; "" if it is not there.
func pemText(field any) (string, error) {
	switch field := field.(type) {
	case nil:
		return "", nil
	case string:
		return field, nil
	case []any:
		var text strings.Builder
		for _, one := range field {
			s, ok := one.(string)
			if !ok {
				return "", errors.New("it is not text")
			}
			text.WriteString(s + "\n")
		}
		return text.String(), nil
	}
	return "", errors.New("it is not text")
}
