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
	"bufio"
	"cmp"
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
	return write(path, perm, whole(data), Rename)
}

// WriteStream is WriteFile for what does not fit into memory: fill writes it.
// After an error of fill, too, the old file is untouched.
func WriteStream(path string, perm fs.FileMode, fill func(io.Writer) error) error {
	return write(path, perm, func(w io.Writer) error {
		buffered := bufio.NewWriterSize(w, 256<<10)
		if err := fill(buffered); err != nil {
			return err
		}
		return buffered.Flush()
	}, Rename)
}

// whole writes data in one piece.
func whole(data []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}
}

// CreateFile is WriteFile for a file that must not exist yet: it fails with
// fs.ErrExist if it does, and of several callers at once one wins. The one that
// exists is on the disk then, even if who made it was killed at once.
func CreateFile(path string, data []byte, perm fs.FileMode) error {
	return write(path, perm, whole(data), func(from, to string) error {
		err := link(from, to)
		if errors.Is(err, fs.ErrExist) {
			return cmp.Or(SyncDir(filepath.Dir(to)), err)
		}
		if err != nil {
			return err
		}
		return Remove(from)
	})
}

func write(path string, perm fs.FileMode, fill func(io.Writer) error, place func(from, to string) error) (err error) {
	tmp, err := temporary(path)
	if err != nil {
		return err
	}
	f, err := OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // already closed on the later paths; the first error is the one to report
			_ = Remove(tmp)
		}
	}()
	if err := fill(f); err != nil {
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

// MkdirAll makes dir and its missing parents with mode 0700, durably.
func MkdirAll(dir string) error {
	parent := filepath.Dir(dir)
	if fi, err := os.Stat(dir); err == nil {
		if !fi.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		Settle(dir)
		return nil
	}
	if parent != dir {
		if err := MkdirAll(parent); err != nil {
			return err
		}
	}
	if err := mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// Settle makes what is at path now durable, whoever put it there: one who was killed
// before the directory was synced leaves what a power cut can take back. It is for
// who finds something and builds on it. Where the directory cannot be synced nothing
// came there by this package, which would have failed.
func Settle(path string) { _ = SyncDir(filepath.Dir(path)) }

// ReadFile reads a file of at most limit bytes; a longer one is an error, so
// that a wrong path cannot fill the memory.
func ReadFile(path string, limit int64) ([]byte, error) {
	return read(path, limit, 0, "")
}

const (
	forbiddenPrivate fs.FileMode = 0o077
	complaintPrivate             = "%s holds a secret but has mode %04o: others can reach it; run: chmod 600 %s"
)

// ReadPrivate is ReadFile for a file that holds a secret: it refuses one that
// its group or others may read or write.
func ReadPrivate(path string, limit int64) ([]byte, error) {
	return read(path, limit, forbiddenPrivate, complaintPrivate)
}

// OpenPrivate is os.Open for a file that ReadPrivate would read, but for its size.
func OpenPrivate(path string) (*os.File, error) {
	return open(path, forbiddenPrivate, complaintPrivate)
}

// ReadTrusted is ReadFile for a file that others may read, but that decides
// whom to trust: it refuses one that its group or others may write.
func ReadTrusted(path string, limit int64) ([]byte, error) {
	return read(path, limit, 0o022, "%s says whom to trust but has mode %04o: others can change it; run: chmod go-w %s")
}

// open refuses a file with one of the forbidden mode bits. The complaint is a
// format for path, mode and path.
func open(path string, forbidden fs.FileMode, complaint string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && fi.Mode().Perm()&forbidden != 0 {
		err = fmt.Errorf(complaint, path, fi.Mode().Perm(), path)
	}
	if err != nil {
		_ = f.Close() // the first error is the one to report
		return nil, err
	}
	return f, nil
}

func read(path string, limit int64, forbidden fs.FileMode, complaint string) ([]byte, error) {
	f, err := open(path, forbidden, complaint)
	if err != nil {
		return nil, err
	}
	defer f.Close()
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
