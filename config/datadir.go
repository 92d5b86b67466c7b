// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"path/filepath"
)

// DataDir returns the default data directory: "keyturn" or, for development,
// "keyturn-dev" in $XDG_STATE_HOME, which is ~/.local/state if not set (XDG Base
// Directory Specification 0.8). lookupEnv is os.LookupEnv.
func DataDir(dev bool, lookupEnv func(string) (string, bool)) (string, error) {
	name := "keyturn"
	if dev {
		name = "keyturn-dev"
	}
	if state, _ := lookupEnv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, name), nil
	}
	home, _ := lookupEnv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("neither XDG_STATE_HOME nor HOME says where state belongs: choose a directory with --data or KEYTURN_DATA")
	}
	return filepath.Join(home, ".local", "state", name), nil
}
