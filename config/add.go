// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"

	"go.yaml.in/yaml/v4"
)

// ErrExists means that there is an issuer of that name already.
var ErrExists = errors.New("there is an issuer of that name already")

// AddIssuer returns a shared configuration's text with one more issuer, comments
// and order kept. An empty text becomes one with that issuer alone. The default
// issuer stays what it was.
//
// The error is ErrExists, or what ParseShared refuses, of the text or of the
// settings.
func AddIssuer(text []byte, name string, i Issuer) ([]byte, error) {
	top, err := document(text)
	if err != nil {
		return nil, err
	}
	if top == nil {
		return (&Shared{DefaultIssuer: name, Issuers: map[string]Issuer{name: i}}).Encode()
	}
	shared, err := ParseShared(text)
	if err != nil {
		return nil, err
	}
	if _, there := shared.Issuers[name]; there {
		return nil, fmt.Errorf("%w: %s", ErrExists, name)
	}
	settings, err := nodeOf(i)
	if err != nil {
		return nil, err
	}
	issuers := valueOf(top, "issuers")
	issuers.Content = append(issuers.Content, nameNode(name), settings)
	if valueOf(top, "default_issuer") == nil {
		top.Content = append(top.Content, nameNode("default_issuer"), nameNode(shared.DefaultIssuer))
	}
	if text, err = yaml.Dump(top, yaml.WithIndent(2)); err != nil {
		return nil, fmt.Errorf("writing the shared configuration: %w", err)
	}
	if _, err := ParseShared(text); err != nil {
		return nil, err
	}
	return text, nil
}

// nodeOf returns an issuer's settings as YAML.
func nodeOf(i Issuer) (*yaml.Node, error) {
	text, err := yaml.Dump(i)
	if err != nil {
		return nil, fmt.Errorf("writing an issuer's settings: %w", err)
	}
	return document(text)
}

// nameNode is a text that could be read as a number.
func nameNode(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

// valueOf returns what stands under a key; nil if nothing does.
func valueOf(mapping *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == key {
			return mapping.Content[i+1]
		}
	}
	return nil
}
