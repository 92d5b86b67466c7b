// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyturn/keyturn/bus/jetstream"
	"github.com/keyturn/keyturn/internal/durable"
)

// storeDir holds JetStream's files, and asideDir what was set aside of them.
const (
	storeDir = "jetstream"
	asideDir = "aside"
)

// KeyFiles returns what a server's directory has beside JetStream's files, by path:
// its keys, its CA, and who is revoked. With them, whoever has credentials has them
// still when the directory was lost. They are secrets.
func KeyFiles(dir string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case relErr != nil:
			return relErr
		case d.IsDir() && (name == storeDir || name == asideDir):
			return fs.SkipDir
		case !d.Type().IsRegular() || durable.Temporary(d.Name()):
			return nil
		}
		files[name], err = durable.ReadFile(path, maxRevoked)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("embedded bus: reading its keys: %w", err)
	}
	return files, nil
}

// PutKeyFiles puts back what KeyFiles returned. Who is revoked by what is there
// stays so.
func PutKeyFiles(dir string, files map[string][]byte) error {
	for name, data := range files {
		if !filepath.IsLocal(name) {
			return fmt.Errorf("embedded bus: %q is no place for a key", name)
		}
		path := filepath.Join(dir, name)
		if filepath.Base(name) == revokedFile {
			here, err := readRevoked(path)
			if err != nil {
				return fmt.Errorf("embedded bus: %w", err)
			}
			data = append([]byte(strings.Join(here, "\n")+"\n"), data...)
		}
		if err := durable.MkdirAll(filepath.Dir(path)); err != nil {
			return fmt.Errorf("embedded bus: %w", err)
		}
		perm := durable.PrivateFile
		if name == "ca.pem" {
			perm = 0o644
		}
		if err := durable.WriteFile(path, data, perm); err != nil {
			return fmt.Errorf("embedded bus: putting back its keys: %w", err)
		}
	}
	return nil
}

// SetAside moves the files of a tenant's log and board away, so that Create makes
// new ones, and returns where they are; "" if there were none. The tenant has to be
// one without an account of its own, and no server may run on the directory.
func SetAside(dir, tenant string) (to string, err error) {
	first, err := loadAccount(dir, mainAccount)
	if err != nil {
		return "", fmt.Errorf("embedded bus: %w", err)
	}
	public, err := first.key.PublicKey()
	if err != nil {
		return "", fmt.Errorf("embedded bus: %w", err)
	}
	for _, stream := range jetstream.Streams(tenant) {
		// The server puts a directory of its own name into the one that it is given.
		from := filepath.Join(dir, storeDir, storeDir, public, "streams", stream)
		if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if to == "" {
			to = newAside(dir)
		}
		if err := moveInto(to, from); err != nil {
			return to, fmt.Errorf("embedded bus: setting the files of stream %s aside: %w", stream, err)
		}
	}
	return to, nil
}

// SetAllAside is SetAside of everything that JetStream has, for a server that does
// not start with it.
func SetAllAside(dir string) (to string, err error) {
	from := filepath.Join(dir, storeDir)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	to = newAside(dir)
	if err := moveInto(to, from); err != nil {
		return to, fmt.Errorf("embedded bus: setting JetStream's files aside: %w", err)
	}
	return to, nil
}

// newAside returns a place for what is set aside now.
func newAside(dir string) string {
	return filepath.Join(dir, asideDir, time.Now().UTC().Format("20060102T150405.000000000"))
}

func moveInto(dir, from string) error {
	if err := durable.MkdirAll(dir); err != nil {
		return err
	}
	if err := durable.Rename(from, filepath.Join(dir, filepath.Base(from))); err != nil {
		return err
	}
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(from))
}
