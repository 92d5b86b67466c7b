// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/internal/durable"
)

// A Cache keeps what must outlive the process, instead of a directory. Whatever was
// written as a Cache for golang.org/x/crypto/acme/autocert is one. Since this package
// does not import that one, it has to be told by which error such a cache says that
// there is nothing:
//
//	acme.Config{Cache: autocert.DirCache(dir), CacheMiss: autocert.ErrCacheMiss, …}
//
// A cache of your own returns [ErrCacheMiss], or [os.ErrNotExist].
//
// What is put is secret: private keys are in it. When Put returns, it has to survive a
// crash. Keys are made of lower-case letters, digits and "-._+".
//
// Processes that share a cache use what the others have obtained. They do not renew at
// the same time as a rule, but there is no lock: two that are started at once for the
// first time obtain two certificates.
type Cache interface {
	// Get returns what was put under the key last, or the error that means nothing.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put replaces what is kept under the key.
	Put(ctx context.Context, key string, data []byte) error
}

// ErrCacheMiss means that nothing is kept under a key.
var ErrCacheMiss = errors.New("acme: nothing is kept under this key")

// maxKept bounds what is read from a directory, in bytes: 100 names, a chain of ten and
// an RSA key are a tenth of it.
const maxKept = 1 << 20

// DefaultDir is where things are kept if nothing else is said: the state directory
// that systemd gives a unit (StateDirectory=), else "keyturn-acme" in
// $XDG_STATE_HOME, which is ~/.local/state if not set.
func DefaultDir() (string, error) {
	if dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":"); filepath.IsAbs(dir) {
		return dir, nil
	}
	state := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(state) {
		home := os.Getenv("HOME")
		if !filepath.IsAbs(home) {
			return "", errors.New("none of STATE_DIRECTORY, XDG_STATE_HOME and HOME says where state belongs: set Dir")
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "keyturn-acme"), nil
}

// dirCache keeps things in files.
type dirCache string

// openDir makes the directory if it is missing.
func openDir(dir string) (dirCache, error) {
	if dir == "" {
		var err error
		if dir, err = DefaultDir(); err != nil {
			return "", err
		}
	}
	if err := durable.MkdirAll(dir); err != nil {
		return "", err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if mode := fi.Mode().Perm(); mode&0o022 != 0 {
		return "", fmt.Errorf("%s is to hold keys but has mode %04o: others could replace them; run: chmod go-w %s", dir, mode, dir)
	}
	return dirCache(dir), nil
}

func (d dirCache) Get(_ context.Context, key string) ([]byte, error) {
	return durable.ReadPrivate(d.path(key), maxKept)
}

func (d dirCache) Put(_ context.Context, key string, data []byte) error {
	return durable.WriteFile(d.path(key), data, durable.PrivateFile)
}

// create is Put where nothing is kept, else it returns fs.ErrExist.
func (d dirCache) create(_ context.Context, key string, data []byte) error {
	return durable.CreateFile(d.path(key), data, durable.PrivateFile)
}

func (d dirCache) path(key string) string { return filepath.Join(string(d), key) }

// lock returns durable.ErrLocked if another process, or another Server of this one,
// renews what is kept under the name.
func (d dirCache) lock(name string) (*durable.Lock, error) {
	return durable.TryLock(d.path(name + ".lock"))
}

// sweep removes what writes of the name's files left that were cut short. The caller
// holds the lock.
func (d dirCache) sweep(name string) error {
	files, err := os.ReadDir(string(d))
	for _, f := range files {
		if durable.Temporary(f.Name()) && strings.HasPrefix(f.Name(), "."+name+".") {
			err = errors.Join(err, durable.Remove(d.path(f.Name())))
		}
	}
	return err
}
