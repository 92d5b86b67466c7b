// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"strings"
)

// Sources are where the settings of a process come from. A flag counts before
// an environment variable, that before the file, and that before the default.
type Sources struct {
	// Flags are the flags that were given on the command line, by name without
	// the hyphens before it: "log-level". An empty value counts as a value. Flags
	// that are not settings of Local are ignored.
	Flags map[string]string

	// LookupEnv is os.LookupEnv, or nil for no environment. A variable that is
	// empty counts as not set.
	LookupEnv func(name string) (value string, set bool)

	// File is what the file holds; nil for no file.
	File *Local

	// Default is what holds where nothing else is said.
	Default Local
}

// Local returns what the sources say together. Each value of a flag or a
// variable is checked as one of the file is; the error joins one for each that
// is wrong and names the flag or variable.
func (s Sources) Local() (*Local, error) {
	local := s.Default
	var errs []error
	for _, setting := range settings {
		value, from := s.lookup(setting)
		if from == "" {
			continue
		}
		if err := setting.check(value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", from, err))
			continue
		}
		*setting.field(&local) = value
	}
	return &local, errors.Join(errs...)
}

// lookup returns the value that counts and where it is from: "" for nowhere.
func (s Sources) lookup(setting setting) (value, from string) {
	flag := strings.ReplaceAll(setting.key, "_", "-")
	if v, set := s.Flags[flag]; set {
		return v, "--" + flag
	}
	if s.LookupEnv != nil {
		if v, _ := s.LookupEnv(Variable(flag)); v != "" {
			return v, Variable(flag)
		}
	}
	if s.File != nil {
		if v := *setting.field(s.File); v != "" {
			return v, setting.key
		}
	}
	return "", ""
}

// Variable returns the name of the environment variable that stands for a flag:
// KEYTURN_LOG_LEVEL for "log-level".
func Variable(flag string) string {
	return "KEYTURN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
