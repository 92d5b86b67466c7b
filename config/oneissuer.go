// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
)

// ReadIssuer reads the settings of one issuer, which are those that the shared
// configuration has below its name: the type and what belongs to it. The error joins an
// *Error for each thing that is wrong.
func ReadIssuer(text []byte) (Issuer, error) {
	top, err := document(text)
	if err != nil {
		return Issuer{}, err
	}
	var p problems
	m := p.read("", top)
	i := m.issuer()
	if err := p.err(); err != nil {
		return Issuer{}, err
	}
	return i, nil
}

// issuerOf reads the settings of an issuer that stand as KEY=VALUE, in which dots lead to
// what is below a key, and the value is written as in YAML.
func issuerOf(kind string, settings []string) (Issuer, error) {
	if !nameForm.MatchString(kind) {
		return Issuer{}, fmt.Errorf("%.40q is not a type of issuer", kind)
	}
	tree := new(branch)
	tree.put([]string{"type"}, kind)
	for _, s := range settings {
		key, value, ok := strings.Cut(s, "=")
		if !ok || key == "" || strings.ContainsFunc(key, func(r rune) bool { return r != '_' && r != '.' && (r < 'a' || r > 'z') }) {
			return Issuer{}, fmt.Errorf("%.80q is not KEY=VALUE", key)
		}
		if strings.ContainsAny(value, "\r\n") {
			return Issuer{}, fmt.Errorf("%s: a value is one line", key)
		}
		if !tree.put(strings.Split(key, "."), value) {
			return Issuer{}, fmt.Errorf("%s: it is here twice, or above another", key)
		}
	}
	var b strings.Builder
	tree.write(&b, "")
	i, err := ReadIssuer([]byte(b.String()))
	var wrong *Error
	if errors.As(err, &wrong) {
		return i, withoutLines(err) // they are of no text that anybody has seen
	}
	return i, err
}

func withoutLines(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var errs []error
	for _, one := range joined.Unwrap() {
		var wrong *Error
		if errors.As(one, &wrong) {
			one = &Error{Key: wrong.Key, Problem: wrong.Problem}
		}
		errs = append(errs, one)
	}
	return errors.Join(errs...)
}

// A branch is keys in their order, with text or a branch below each.
type branch struct {
	keys  []string
	below map[string]*branch
	text  string
}

// put reports whether there was room.
func (b *branch) put(path []string, text string) bool {
	if b.below == nil {
		b.below = make(map[string]*branch)
	}
	next := b.below[path[0]]
	if next != nil && (len(path) == 1 || next.below == nil) {
		return false
	}
	if next == nil {
		next = new(branch)
		b.keys, b.below[path[0]] = append(b.keys, path[0]), next
	}
	if len(path) == 1 {
		next.text = text
		return true
	}
	return next.put(path[1:], text)
}

func (b *branch) write(to *strings.Builder, indent string) {
	for _, key := range b.keys {
		next := b.below[key]
		fmt.Fprintf(to, "%s%s: %s\n", indent, key, next.text)
		next.write(to, indent+"  ")
	}
}
