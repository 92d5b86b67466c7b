// SPDX-License-Identifier: Apache-2.0

package durable_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/internal/durable"
)

func TestWriteFileReplacesWholeAndKeepsMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", strings.Repeat("x", 1<<20), ""} {
		if err := durable.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Fatalf("read back %d bytes, %v; want %d", len(got), err, len(want))
		}
		if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v", fi.Mode())
		}
	}
	names, _ := os.ReadDir(filepath.Dir(path))
	if len(names) != 1 {
		t.Fatalf("temporary files left behind: %v", names)
	}
}

func TestWriteFileKeepsTheOldOneOnError(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o700); err != nil { // a directory cannot be renamed over
		t.Fatal(err)
	}
	if err := durable.WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Fatal("replaced a directory")
	}
	names, _ := os.ReadDir(dir)
	if len(names) != 1 {
		t.Fatalf("temporary files left behind: %v", names)
	}
}

func TestWriteStream(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	broken := errors.New("broken")
	for _, c := range []struct {
		text, want string
		err        error
	}{{"one", "one", nil}, {"half", "one", broken}, {strings.Repeat("x", 1<<20), strings.Repeat("x", 1<<20), nil}} {
		err := durable.WriteStream(path, 0o600, func(w io.Writer) error {
			for _, b := range []byte(c.text) {
				if _, err := w.Write([]byte{b}); err != nil {
					return err
				}
			}
			return c.err
		})
		got, readErr := os.ReadFile(path)
		if !errors.Is(err, c.err) || readErr != nil || string(got) != c.want {
			t.Fatalf("%v, read back %d bytes, %v", err, len(got), readErr)
		}
	}
	names, _ := os.ReadDir(dir)
	if fi, _ := os.Stat(path); len(names) != 1 || fi.Mode().Perm() != 0o600 {
		t.Fatalf("%v, mode %v", names, fi.Mode())
	}
}

func TestCreateFileHasOneWinner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var wg sync.WaitGroup
	var won atomic.Int32
	for range 16 {
		wg.Go(func() {
			switch err := durable.CreateFile(path, []byte("x"), 0o600); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d winners", won.Load())
	}
}

func TestReadPrivateRefusesWhatOthersCanReach(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for mode, ok := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false} {
		if err := os.WriteFile(path, []byte("k"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := durable.ReadPrivate(path, 10)
		if (err == nil) != ok {
			t.Errorf("mode %04o: %v", mode, err)
		}
		_, err = durable.ReadTrusted(path, 10)
		if (err == nil) != (mode&0o022 == 0) {
			t.Errorf("mode %04o, trusted: %v", mode, err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, make([]byte, 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.ReadFile(path, 10); err == nil {
		t.Fatal("read more than the limit")
	}
	if b, err := durable.ReadFile(path, 11); err != nil || len(b) != 11 {
		t.Fatal(len(b), err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	l, err := durable.TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := durable.TryLock(path); !errors.Is(err, durable.ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	l, err = durable.TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Release()
}

func TestMkdirAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := durable.MkdirAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	if fi, _ := os.Stat(dir); fi.Mode().Perm() != 0o700 {
		t.Fatal(fi.Mode())
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.MkdirAll(file); err == nil {
		t.Fatal("a file passed for a directory")
	}
}
