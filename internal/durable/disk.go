// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"io/fs"
	"os"
	"sync/atomic"
)

// An Op is a kind of [Step]. The text names it in the names of crash points.
type Op string

// All that is done to files and directories.
const (
	OpOpen   Op = "opened"  // File at Path: made if it was missing, emptied with os.O_TRUNC in Flag
	OpWrite  Op = "written" // Data to the end of File
	OpSync   Op = "synced"  // File
	OpRename Op = "renamed" // Path to To
	OpLink   Op = "linked"  // Path as To
	OpRemove Op = "removed" // Path, and all that is below it
	OpMkdir  Op = "made"    // the directory Path
	OpNames  Op = "named"   // the names in the directory Path are on the disk
)

// A Step is one thing that was done, and has succeeded.
type Step struct {
	Op       Op
	Path, To string
	File     *File
	Flag     int
	Data     []byte // valid during the call
}

var observer atomic.Pointer[func(Step)]

// Observe has see called with each step of this process, by the goroutine that
// took it, until stop is called. Tests learn by it what a power cut may leave, and
// are killed at it. There is one observer at a time.
func Observe(see func(Step)) (stop func()) {
	if !observer.CompareAndSwap(nil, &see) {
		panic("durable: observed already")
	}
	return func() { observer.Store(nil) }
}

func done(s Step) {
	if see := observer.Load(); see != nil {
		(*see)(s)
	}
}

// A File is one that is written from its start, or from its end on.
type File struct{ file *os.File }

// OpenFile is os.OpenFile for a file that is written. What is written is on the
// disk after Sync, and a name that is new after SyncDir.
func OpenFile(path string, flag int, perm fs.FileMode) (*File, error) {
	file, err := os.OpenFile(path, flag, perm)
	if err != nil {
		return nil, err
	}
	f := &File{file}
	done(Step{Op: OpOpen, Path: path, File: f, Flag: flag})
	return f, nil
}

// Write writes data as a whole.
func (f *File) Write(data []byte) (int, error) {
	n, err := f.file.Write(data)
	done(Step{Op: OpWrite, Path: f.file.Name(), File: f, Data: data[:n]})
	return n, err
}

// Sync returns when everything that was written is on the disk.
func (f *File) Sync() error {
	if err := f.file.Sync(); err != nil {
		return err
	}
	done(Step{Op: OpSync, Path: f.file.Name(), File: f})
	return nil
}

// Close makes nothing durable.
func (f *File) Close() error { return f.file.Close() }

// Rename is os.Rename, and durable after SyncDir.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	done(Step{Op: OpRename, Path: from, To: to})
	return nil
}

func link(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	done(Step{Op: OpLink, Path: from, To: to})
	return nil
}

// Remove is os.Remove, and durable after SyncDir.
func Remove(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	done(Step{Op: OpRemove, Path: path})
	return nil
}

// RemoveAll is os.RemoveAll, and durable after SyncDir of where path is. A crash
// leaves some of it.
func RemoveAll(path string) error {
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	done(Step{Op: OpRemove, Path: path})
	return nil
}

func mkdir(path string) error {
	if err := os.Mkdir(path, PrivateDir); err != nil {
		return err
	}
	done(Step{Op: OpMkdir, Path: path})
	return nil
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
	done(Step{Op: OpNames, Path: dir})
	return d.Close()
}
