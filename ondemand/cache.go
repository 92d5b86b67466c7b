// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
)

// A Cache keeps certificates beyond the life of the process. All methods may be called
// by any number of goroutines at once; ctx bounds them. Whatever was written as a Cache
// for golang.org/x/crypto/acme/autocert is one.
//
// What is kept is a private key in PKCS #8 form and the certificate's chain, as PEM,
// under the name that the certificate is for. It is secret, and who can change it decides with which key
// this process serves, though not for which names: what is not whole, belongs to
// another key or name, or has ended counts as nothing. Processes may share a Cache: one
// that is to renew a certificate takes what another has put there meanwhile.
type Cache interface {
	// Get returns what was put under the name last. If there is nothing, the error
	// is, or wraps, ErrCacheMiss or fs.ErrNotExist. Any other is logged and then
	// counts as nothing, too.
	Get(ctx context.Context, name string) ([]byte, error)
	// Put replaces what is kept under the name.
	Put(ctx context.Context, name string, data []byte) error
	// Delete removes what is kept under the name. If there is nothing, that is no
	// error.
	Delete(ctx context.Context, name string) error
}

// ErrCacheMiss means that nothing is kept under a name.
var ErrCacheMiss = errors.New("ondemand: nothing is kept under this name")

const (
	// maxKept bounds what is read of a file, in bytes: 100 names, a chain of ten and
	// an RSA key are a tenth of it.
	maxKept = 1 << 20
	// maxFileName leaves room for what a write puts around a file's name, which may
	// have 255 bytes.
	maxFileName = 200
	// leftover is the age at which a temporary file is what a crash left.
	leftover = time.Hour
)

// Dir returns a Cache of one directory, with one file for each name: "NAME.pem", or the
// SHA-256 of what is no file name. The directory is made when it is first written to, with
// mode 0700; files have mode 0600, and are replaced as a whole: a crash leaves the old one
// or the new one. A directory that others may write is refused, and so is a file that others
// may read, whose key is no secret any more.
func Dir(path string) Cache { return &dir{path: path} }

type dir struct {
	path  string
	swept sync.Once
}

func (d *dir) Get(_ context.Context, name string) ([]byte, error) {
	data, err := durable.ReadPrivate(d.file(name), maxKept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrCacheMiss
	}
	if err != nil {
		return nil, err
	}
	return data, d.check()
}

func (d *dir) Put(_ context.Context, name string, data []byte) error {
	if err := durable.MkdirAll(d.path); err != nil {
		return err
	}
	if err := d.check(); err != nil {
		return err
	}
	d.swept.Do(d.sweep)
	return durable.WriteFile(d.file(name), data, durable.PrivateFile)
}

func (d *dir) Delete(_ context.Context, name string) error {
	err := durable.Remove(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(d.path)
}

// check refuses a directory in which others could put keys of their own.
func (d *dir) check() error {
	fi, err := os.Stat(d.path)
	if err != nil {
		return err
	}
	if mode := fi.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s is to hold keys but has mode %04o: others could replace them; run: chmod go-w %s", d.path, mode, d.path)
	}
	return nil
}

// sweep removes what a crash left. What cannot be removed is not in the way.
func (d *dir) sweep() {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err == nil && durable.Temporary(e.Name()) && time.Since(fi.ModTime()) > leftover {
			_ = durable.Remove(filepath.Join(d.path, e.Name()))
		}
	}
}

// file is never outside the directory. No host name is as long as a label of a hash
// and what stands before it, so that none has another's file.
func (d *dir) file(name string) string {
	plain := name != "" && len(name) <= maxFileName && name[0] != '.' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.:-*") == ""
	if !plain {
		sum := sha256.Sum256([]byte(name))
		name = "sha256-" + hex.EncodeToString(sum[:])
	}
	return filepath.Join(d.path, name+".pem")
}
