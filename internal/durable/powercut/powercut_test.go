// SPDX-License-Identifier: Apache-2.0

package powercut_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/durable/powercut"
)

// content is what the n-th writer of a file writes: of several sectors, and unlike
// the others' in each of them.
func content(n int) []byte { return bytes.Repeat([]byte(strconv.Itoa(n)), 1300) }

// whole returns whose content a file holds, 0 if there is none.
func whole(path string) (int, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, err
	case len(data) == 0:
		return 0, errors.New("the file is empty")
	}
	n := int(data[0] - '0')
	if n < 1 || n > 9 || !bytes.Equal(data, content(n)) {
		return 0, fmt.Errorf("the file's %d bytes are a mixture", len(data))
	}
	return n, nil
}

// wrong returns what of the cuts is not as it should be, of the file at path.
func wrong(r *powercut.Recording, path string) (errs []error) {
	r.Cuts(func(c powercut.Cut) {
		switch n, err := whole(filepath.Join(c.Dir, path)); {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", c, err))
		case n < c.Acknowledged:
			errs = append(errs, fmt.Errorf("%s: the file is number %d", c, n))
		}
	})
	return errs
}

func write(t *testing.T, path string, n int) {
	t.Helper()
	if err := durable.WriteFile(path, content(n), durable.PrivateFile); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFile(t *testing.T) {
	dir := powercut.Dir(t)
	rec := powercut.Record(t, dir)
	for n := 1; n <= 3; n++ {
		write(t, filepath.Join(dir, "f"), n)
		rec.Acknowledge(n)
	}
	r := rec.Stop()
	for _, err := range wrong(r, "f") {
		t.Error(err)
	}
	r.Kills(func(k powercut.Kill) {
		again := k.Record()
		path := filepath.Join(k.Dir, "f")
		before, err := whole(path)
		if err != nil || before < k.Acknowledged {
			t.Fatalf("killed after %s: number %d, %v", k.After, before, err)
		}
		write(t, path, before+1)
		again.Acknowledge(before + 1)
		for _, err := range wrong(again.Stop(), "f") {
			t.Errorf("killed after %s, then: %v", k.After, err)
		}
	})
}

// TestCreateFile has a process find what a killed one has created, and build on it.
func TestCreateFile(t *testing.T) {
	create := func(path string, n int) {
		t.Helper()
		if err := durable.CreateFile(path, content(n), durable.PrivateFile); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	dir := powercut.Dir(t)
	rec := powercut.Record(t, dir)
	create(filepath.Join(dir, "f"), 1)
	rec.Acknowledge(1)
	r := rec.Stop()
	for _, err := range wrong(r, "f") {
		t.Error(err)
	}
	r.Kills(func(k powercut.Kill) {
		again := k.Record()
		create(filepath.Join(k.Dir, "f"), 2)
		again.Acknowledge(1)
		for _, err := range wrong(again.Stop(), "f") {
			t.Errorf("killed after %s, then: %v", k.After, err)
		}
	})
}

// TestMkdirAll has a process find the directories that a killed one has made, and
// write to them.
func TestMkdirAll(t *testing.T) {
	const deep = "a/b/c"
	work := func(rec *powercut.Recorder, dir string) *powercut.Recording {
		t.Helper()
		if err := durable.MkdirAll(filepath.Join(dir, deep)); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, deep, "f"), 1)
		rec.Acknowledge(1)
		return rec.Stop()
	}
	dir := powercut.Dir(t)
	r := work(powercut.Record(t, dir), dir)
	for _, err := range wrong(r, deep+"/f") {
		t.Error(err)
	}
	r.Kills(func(k powercut.Kill) {
		for _, err := range wrong(work(k.Record(), k.Dir), deep+"/f") {
			t.Errorf("killed after %s, then: %v", k.After, err)
		}
	})
}

// TestFindsOut leaves out one step of a write at a time. What a power cut does to it
// has to be found out.
func TestFindsOut(t *testing.T) {
	for _, without := range []string{"nothing", "sync", "names", "rename"} {
		t.Run(without, func(t *testing.T) {
			dir := powercut.Dir(t)
			path := filepath.Join(dir, "f")
			write(t, path, 1)
			rec := powercut.Record(t, dir)
			rec.Acknowledge(1)
			tmp, flag := path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC
			if without == "rename" {
				tmp = path
			}
			f, err := durable.OpenFile(tmp, flag, durable.PrivateFile)
			if err != nil {
				t.Fatal(err)
			}
			_, err = f.Write(content(2))
			if without != "sync" {
				err = errors.Join(err, f.Sync())
			}
			err = errors.Join(err, f.Close())
			if without != "rename" {
				err = errors.Join(err, durable.Rename(tmp, path))
			}
			if without != "names" {
				err = errors.Join(err, durable.SyncDir(dir))
			}
			if err != nil {
				t.Fatal(err)
			}
			rec.Acknowledge(2)
			errs := wrong(rec.Stop(), "f")
			if found := len(errs) > 0; found != (without != "nothing") {
				t.Errorf("%d states are wrong: %v", len(errs), errors.Join(errs...))
			}
		})
	}
}
