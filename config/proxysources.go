// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// proxyPrefix is what the names of the proxy's variables start with.
const proxyPrefix = "KEYTURN_PROXY_"

// ProxyConfigVariable is the variable that names the proxy's file; it is no setting.
const ProxyConfigVariable = proxyPrefix + "CONFIG"

// Variable is the name of the setting's environment variable.
func (s ProxySetting) Variable() string { return proxyPrefix + strings.ToUpper(s.Key) }

// ProxySources are where the settings of a proxy come from. A flag counts before an
// environment variable, that before the file, and that before the default.
type ProxySources struct {
	// Flags are those that were given, by name without hyphens before it, each with its
	// values. Others than settings are left alone.
	Flags map[string][]string
	// Environ are variables, NAME=VALUE, as os.Environ returns them. One that is empty
	// counts as not set; an unknown one that starts with KEYTURN_PROXY_ is an error.
	Environ []string
	// File is the text of the file; nil is none.
	File []byte
}

// A FileError is one of [ProxySources.File].
type FileError struct{ error }

// Unwrap returns what is wrong.
func (e *FileError) Unwrap() error { return e.error }

// Proxy returns what the sources say together. The error joins one for each that is wrong,
// and names the flag, the variable, or the line and key of the file, whose errors are
// one FileError.
func (s ProxySources) Proxy() (*Proxy, error) {
	p := new(Proxy)
	for _, one := range proxySettings {
		if one.Default != "" {
			if err := one.set(p, []string{one.Default}); err != nil {
				return nil, fmt.Errorf("the default of %s: %w", one.Key, err)
			}
		}
	}
	if err := p.file(s.File); err != nil {
		return nil, &FileError{err}
	}
	vars, err := s.variables()
	errs := []error{err}
	for _, one := range proxySettings {
		values, from := vars[one.Key], one.Variable()
		if given, ok := s.Flags[one.Flag()]; ok {
			values, from = given, "--"+one.Flag()
		}
		if values == nil || one.set == nil {
			continue
		}
		if err := one.set(p, values); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", from, err))
		}
	}
	errs = append(errs, s.issuer(p, vars))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, p.check()
}

// variables returns those of the environment, by key.
func (s ProxySources) variables() (map[string][]string, error) {
	known := make(map[string]ProxySetting)
	for _, one := range proxySettings {
		known[one.Variable()] = one
	}
	values := make(map[string][]string)
	var errs []error
	for _, line := range s.Environ {
		name, value, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, proxyPrefix) || name == ProxyConfigVariable {
			continue
		}
		one, ok := known[name]
		switch {
		case value == "":
		case !ok:
			errs = append(errs, fmt.Errorf("%.80s: unknown variable; each flag --NAME has %sNAME", name, proxyPrefix))
		case one.List:
			values[one.Key] = strings.Split(value, ",")
		default:
			values[one.Key] = []string{value}
		}
	}
	return values, errors.Join(errs...)
}

// issuer reads the issuer of flags and variables, which takes the place of the file's.
func (s ProxySources) issuer(p *Proxy, vars map[string][]string) error {
	kind, settings, from := vars["issuer"], vars["issuer_set"], proxyPrefix+"ISSUER_SET"
	if given, ok := s.Flags["issuer"]; ok {
		kind = given
	}
	given, byFlag := s.Flags["issuer-set"]
	if byFlag {
		settings, from = given, "--issuer-set"
	}
	if kind == nil {
		if settings != nil {
			return fmt.Errorf("%s: there is no --issuer that it could be a setting of", from)
		}
		return nil
	}
	i, err := issuerOf(kind[0], settings)
	if err != nil {
		return fmt.Errorf("--issuer %.40s: %w", kind[0], err)
	}
	// What is hidden when it is shown is a secret; arguments are in everybody's view.
	if text, err := json.Marshal(i); byFlag && (err != nil || strings.Contains(string(text), Hidden)) {
		return errors.New("--issuer-set: a secret is no argument, where every process sees it: have a file hold it, or the configuration that --config names")
	}
	p.Issuer = &i
	return nil
}

// file reads the settings of a file.
func (p *Proxy) file(text []byte) error {
	top, err := document(text)
	if err != nil {
		return err
	}
	var all problems
	m := all.read("", top)
	var known []string
	for _, one := range proxySettings {
		if one.Key == "issuer_set" {
			continue // a file has them below issuer
		}
		known = append(known, one.Key)
		if m.values[one.Key] == nil {
			continue
		}
		if one.Key == "issuer" {
			below := all.read("issuer", m.values["issuer"])
			p.Issuer = new(below.issuer())
			continue
		}
		m.proxySetting(p, one)
	}
	m.only(known...)
	return all.err()
}

func (m *mapping) proxySetting(p *Proxy, one ProxySetting) {
	var values []string
	ok := false
	if one.List {
		values, ok = texts(m, one.Key, func(s string) (string, error) { return s, nil })
	} else {
		values = []string{""}
		values[0], ok = m.scalar(one.Key)
	}
	if !ok || len(values) == 0 {
		return // a list without elements is the default, or reported
	}
	if err := one.set(p, values); err != nil {
		m.wrong(one.Key, "%v", err)
	}
}
