// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds of a configuration.
const (
	// MaxSize is the most bytes that a configuration may have. An entry of the
	// bus takes 256 KiB, and sealing and signing need some of them.
	MaxSize = 240 << 10
	// maxDepth is how deep mappings and lists may lie in one another.
	maxDepth = 16
)

// document returns the top of the one document in text; nil if it is empty. It
// refuses what makes YAML more than a tree of keys and values.
func document(text []byte) (*yaml.Node, error) {
	if len(text) > MaxSize {
		return nil, &Error{Problem: fmt.Sprintf("the configuration has %d bytes; at most %d are allowed", len(text), MaxSize)}
	}
	if !utf8.Valid(text) {
		return nil, &Error{Problem: "the configuration is not UTF-8 text"}
	}
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("reading YAML: %w", err)
	}
	var doc, second yaml.Node
	switch err := loader.Load(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntax(err)
	}
	if err := loader.Load(&second); err == nil {
		return nil, &Error{Line: second.Line, Problem: "a second YAML document starts here; only one is allowed"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntax(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, &Error{Problem: "the configuration is not one YAML document"}
	}
	top := doc.Content[0]
	if top.Kind == yaml.ScalarNode && top.Tag == "!!null" {
		return nil, nil
	}
	return top, plain(top, 0)
}

func syntax(err error) error {
	var load *yaml.LoadError
	if errors.As(err, &load) {
		return &Error{Line: load.Mark.Line, Problem: "this is not YAML: " + load.Message}
	}
	return &Error{Problem: "this is not YAML: " + err.Error()}
}

func plain(n *yaml.Node, depth int) error {
	problem := ""
	switch {
	case depth > maxDepth:
		problem = fmt.Sprintf("mappings and lists lie more than %d deep in one another", maxDepth)
	case n.Kind == yaml.AliasNode:
		problem = "YAML aliases (*name) are not supported: write the value out"
	case n.Anchor != "":
		problem = "YAML anchors (&name) are not supported: write the value out where it is needed"
	case n.Style&yaml.TaggedStyle != 0:
		problem = "YAML tags (!name) are not supported"
	case n.Tag == "!!merge":
		problem = "YAML merge keys (<<) are not supported: write the keys out"
	}
	if problem != "" {
		return &Error{Line: n.Line, Problem: problem}
	}
	for _, c := range n.Content {
		if err := plain(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}
