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
	return stateDir(name, "--data or KEYTURN_DATA", lookupEnv)
}

// ReplicaDir returns the default directory of a host that joins a group:
// "keyturn-replica", beside DataDir's.
func ReplicaDir(lookupEnv func(string) (string, bool)) (string, error) {
	return stateDir("keyturn-replica", "--dir", lookupEnv)
}

func stateDir(name, setting string, lookupEnv func(string) (string, bool)) (string, error) {
	if state, _ := lookupEnv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, name), nil
	}
	home, _ := lookupEnv("HOME")
	if !filepath.IsAbs(home) {
		return "", errors.New("neither XDG_STATE_HOME nor HOME says where state belongs: choose a directory with " + setting)
	}
	return filepath.Join(home, ".local", "state", name), nil
}
