// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Local is the configuration of one process. All fields may be empty, which
// stands for "not set"; [Sources] fills in the defaults.
type Local struct {
	Data string // data directory; a relative one starts in the working directory
	NATS string // listen address of the embedded bus, HOST:PORT; port 0 picks a free one
	HTTP string // listen address of metrics and health, HOST:PORT
	Log  Log
}

// Log says what logs look like.
type Log struct {
	Format string // "text" or "json"
	Level  string // "debug", "info", "warn" or "error": the least that is logged
}

// A setting is a field of Local: its key in the file, from which the names of
// its flag and variable follow.
type setting struct {
	key   string
	field func(*Local) *string
	check func(string) error
}

var settings = []setting{
	{"data", func(l *Local) *string { return &l.Data }, notEmpty},
	{"nats", func(l *Local) *string { return &l.NATS }, listenAddress},
	{"http", func(l *Local) *string { return &l.HTTP }, listenAddress},
	{"log_format", func(l *Local) *string { return &l.Log.Format }, oneOf("text", "json")},
	{"log_level", func(l *Local) *string { return &l.Log.Level }, oneOf("debug", "info", "warn", "error")},
}

// ParseLocal reads a local file. Keys that are not in it stay empty in the
// result; an empty file is a good one. The error joins an *Error for each thing
// that is wrong.
func ParseLocal(text []byte) (*Local, error) {
	top, err := document(text)
	if err != nil {
		return nil, err
	}
	var p problems
	l := p.local(top)
	if err := p.err(); err != nil {
		return nil, err
	}
	return l, nil
}

func (p *problems) local(top *yaml.Node) *Local {
	m := p.read("", top)
	l := new(Local)
	var known []string
	for _, s := range settings {
		known = append(known, s.key)
		if !m.str(s.key, s.field(l)) {
			continue
		}
		if err := s.check(*s.field(l)); err != nil {
			m.wrong(s.key, "%v", err)
		}
	}
	m.only(known...)
	return l
}

func notEmpty(v string) error {
	if v == "" {
		return errors.New("it is empty")
	}
	return nil
}

func oneOf(values ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(values, v) {
			return fmt.Errorf("%.40q is not one of %s", v, strings.Join(values, ", "))
		}
		return nil
	}
}

func listenAddress(v string) error {
	_, port, err := net.SplitHostPort(v)
	if err != nil {
		return fmt.Errorf("%.80q is not an address to listen on, such as 127.0.0.1:4222", v)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%.80q has no port from 0 to 65535", v)
	}
	return nil
}
