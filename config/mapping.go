// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// An Error is one thing that is wrong with a configuration.
type Error struct {
	Line    int    // counted from 1; 0 if no line is to blame
	Key     string // with the keys above it, as in issuers.internal.name or zones["example.com"][0]; or empty
	Problem string
}

// Error is "line 3: issuers.internal.name: the problem".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Key != "" {
		b.WriteString(e.Key + ": ")
	}
	return b.String() + e.Problem
}

// maxErrors is how many errors are collected from one configuration.
const maxErrors = 20

// problems collects errors, so that one reading reports them all.
type problems struct{ errs []error }

func (p *problems) add(line int, key, format string, a ...any) {
	if len(p.errs) < maxErrors {
		p.errs = append(p.errs, &Error{line, key, fmt.Sprintf(format, a...)})
	}
}

func (p *problems) err() error { return errors.Join(p.errs...) }

// A mapping is a YAML mapping whose keys are known, or are names.
type mapping struct {
	*problems
	path   string // key of the mapping itself
	list   bool   // it is a list, and its keys are 0, 1, 2
	line   int
	keys   []string // in the order of the text
	lines  map[string]int
	values map[string]*yaml.Node
}

// read returns the mapping in n, which may be nil for an empty one. What is
// wrong is added to p; the mapping holds the rest.
func (p *problems) read(path string, n *yaml.Node) mapping {
	m := mapping{problems: p, path: path, lines: make(map[string]int), values: make(map[string]*yaml.Node)}
	if n == nil {
		return m
	}
	m.line = n.Line
	if n.Kind != yaml.MappingNode {
		p.add(n.Line, path, "here must be keys with values, not %s", kind(n))
		return m
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		m.put(n.Content[i], n.Content[i+1])
	}
	return m
}

func (m *mapping) put(key, value *yaml.Node) {
	if key.Kind != yaml.ScalarNode {
		m.add(key.Line, m.path, "a key must be text, not %s", kind(key))
		return
	}
	if first, twice := m.lines[key.Value]; twice {
		m.add(key.Line, m.of(key.Value), "the key is here twice; the first is on line %d", first)
		return
	}
	m.keys = append(m.keys, key.Value)
	m.lines[key.Value], m.values[key.Value] = key.Line, value
}

// of returns the whole key of one of the mapping's keys.
func (m *mapping) of(key string) string {
	if len(key) > 80 {
		key = strings.ToValidUTF8(key[:80], "") + "..."
	}
	if m.list {
		return m.path + "[" + key + "]"
	}
	return below(m.path, key)
}

// below returns a key with the keys above it. One that does not look like a word is
// quoted, so that no two are alike.
func below(path, key string) string {
	switch odd := key == "" || strings.ContainsFunc(key, notInWord); {
	case odd && path == "":
		return fmt.Sprintf("%q", key)
	case odd:
		return fmt.Sprintf("%s[%q]", path, key)
	case path == "":
		return key
	}
	return path + "." + key
}

func notInWord(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`.[]"`, r) }

// only adds an error for each key that is not among the known ones.
func (m *mapping) only(known ...string) {
	for _, key := range m.keys {
		if !slices.Contains(known, key) {
			m.add(m.lines[key], m.of(key), "unknown key; known here are %s", strings.Join(known, ", "))
		}
	}
}

// wrong adds an error about the value of a key.
func (m *mapping) wrong(key, format string, a ...any) {
	line := m.line
	if l, given := m.lines[key]; given {
		line = l
	}
	m.add(line, m.of(key), format, a...)
}

// scalar returns the one value under a key, and whether there is one.
func (m *mapping) scalar(key string) (string, bool) {
	v := m.values[key]
	switch {
	case v == nil:
		return "", false
	case v.Kind != yaml.ScalarNode:
		m.wrong(key, "here must be one value, not %s", kind(v))
		return "", false
	case v.Tag == "!!null":
		m.wrong(key, "the key has no value: give it one or leave it out")
		return "", false
	}
	return v.Value, true
}

// str reads text into dst, and reports whether it did.
func (m *mapping) str(key string, dst *string) bool {
	s, ok := m.scalar(key)
	if !ok {
		return false
	}
	if v := m.values[key]; v.Tag != "!!str" {
		m.wrong(key, "here must be text, not %s; quotes make it text", kind(v))
		return false
	}
	*dst = s
	return true
}

// word reads text that is not empty into dst.
func (m *mapping) word(key string, dst *string) {
	if m.str(key, dst) && *dst == "" {
		m.wrong(key, "it is empty: give it a value or leave it out")
	}
}

// parse reads a value into dst as the function understands it: text, or a
// number that somebody forgot the unit of, so that the error can say so.
func parse[T any](m *mapping, key string, dst *T, read func(string) (T, error)) {
	s, ok := m.scalar(key)
	if !ok {
		return
	}
	v, err := read(s)
	if err != nil {
		m.wrong(key, "%v", err)
		return
	}
	*dst = v
}

// boolean reads true or false into dst.
func (m *mapping) boolean(key string, dst *bool) {
	s, ok := m.scalar(key)
	if !ok {
		return
	}
	if v := m.values[key]; v.Tag != "!!bool" {
		m.wrong(key, "here must be true or false, not %s", kind(v))
		return
	}
	*dst = strings.EqualFold(s, "true")
}

// number reads a whole number from least to most into dst.
func (m *mapping) number(key string, dst *int, least, most int) {
	s, ok := m.scalar(key)
	if !ok {
		return
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		m.wrong(key, "%.40q is not a whole number from %d to %d", s, least, most)
		return
	}
	*dst = n
}

// texts reads a list of values, or one value without a list, each as the function
// understands it. None may be there twice. It reports whether all were right.
func texts(m *mapping, key string, read func(string) (string, error)) (all []string, ok bool) {
	list, before := *m, len(m.errs)
	list.keys = []string{key}
	switch v := m.values[key]; {
	case v == nil:
		return nil, true
	case v.Kind == yaml.SequenceNode:
		list = m.read(m.of(key), numbered(v))
		list.list = true
	}
	for _, k := range list.keys {
		var one string
		parse(&list, k, &one, read)
		if one != "" && slices.Contains(all, one) {
			list.wrong(k, "%.80q is here twice", one)
		}
		all = append(all, one)
	}
	return all, len(m.errs) == before
}

// numbered returns a list as a mapping from 0, 1, 2 to its elements.
func numbered(list *yaml.Node) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode, Line: list.Line}
	for i, v := range list.Content {
		m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: strconv.Itoa(i), Line: v.Line}, v)
	}
	return m
}

// kind describes a value of the wrong type.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a date"
	}
	return "a text"
}
