// SPDX-License-Identifier: Apache-2.0

// Package durable writes and reads the files that must survive a crash: each
// is either the old one or the new one, whole, and is on the disk when the
// call returns.
//
// A file is written to a temporary name beside it, fsynced, renamed over the
// old one, and the directory is fsynced: without the last step a power cut can
// bring the old name back. Modes are set when the file is opened, never by a
// later chmod, so that a private file is never readable for a moment.
package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Modes of the files and directories that hold secrets.
const (
	PrivateFile fs.FileMode = 0o600
	PrivateDir  fs.FileMode = 0o700
)

// ErrLocked is returned by Lock when another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// WriteFile replaces the file at path by data, atomically and durably. On an
// error the old file is untouched.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	return write(path, data, perm, os.Rename)
}

// CreateFile is WriteFile for a file that must not exist yet: it fails with
// fs.ErrExist if it does, and of several callers at once one wins.
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	return write(path, data, perm, func(from, to string) error {
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	})
}

func write(path string, data []byte, perm fs.FileMode, place func(from, to string) error) (err error) {
	tmp, err := temporary(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // already closed on the later paths; the first error is the one to report
			_ = os.Remove(tmp)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := place(tmp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func temporary(path string) (string, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+hex.EncodeToString(b[:])+".tmp"), nil
}

// Temporary reports whether name is that of a file that a write was cut short
// at. It may be removed.
func Temporary(name string) bool {
	return strings.HasPrefix(name, ".") && strings.HasSuffix(name, ".tmp")
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err := d.Sync(); err != nil {
		_ = d.Close()
		return err
	}
	return d.Close()
}

// MkdirAll makes dir and its missing parents with mode 0700, durably.
func MkdirAll(dir string) error {
	if fi, err := os.Stat(dir); err == nil {
		if !fi.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, PrivateDir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// ReadFile reads a file of at most limit bytes; a longer one is an error, so
// that a wrong path cannot fill the memory.
func ReadFile(path string, limit int64) ([]byte, error) {
	return read(path, limit, 0, "")
}

// ReadPrivate is ReadFile for a file that holds a secret: it refuses one that
// its group or others may read or write.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	return read(path, limit, 0o077, "%s holds a secret but has mode %04o: others can reach it; run: chmod 600 %s")
}

// ReadTrusted is ReadFile for a file that others may read, but that decides
// whom to trust: it refuses one that its group or others may write.
func ReadTrusted(path string, limit int64) ([]byte, error) {
	return read(path, limit, 0o022, "%s says whom to trust but has mode %04o: others can change it; run: chmod go-w %s")
}

// read refuses a file with one of the forbidden mode bits. The complaint is a
// format for path, mode and path.
func read(path string, limit int64, forbidden fs.FileMode, complaint string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := fi.Mode().Perm(); mode&forbidden != 0 {
		return nil, fmt.Errorf(complaint, path, mode, path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than the %d bytes that such a file may have", path, limit)
	}
	return data, nil
}

// A Lock is held by one process at a time; the kernel releases it when the
// process ends, however it ends.
type Lock struct{ f *os.File }

// TryLock takes the lock file at path, made if missing with mode 0600. It
// returns ErrLocked at once when another process, or another TryLock of this
// one, holds it.
func TryLock(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, PrivateFile)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, &fs.PathError{Op: "flock", Path: path, Err: err}
	}
	return &Lock{f}, nil
}

// Release gives the lock up. The file stays: removing it would let two
// processes lock two files of the same name.
func (l *Lock) Release() error { return l.f.Close() }
