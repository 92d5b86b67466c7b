// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// BuildTime bounds building a module, and waiting for another process that does it.
const BuildTime = 30 * time.Minute

// A Module is one whose programs tests run. It pins their versions, and is a module of
// its own, so that nobody who imports Keyturn gets what they need.
type Module struct {
	// Name starts the name of the directory in the cache.
	Name string
	// Packages are the paths of the programs' packages, each of which ends in the
	// program's name; "." is called Name.
	Packages []string
	// Tags are build tags, with commas.
	Tags string
}

// Programs returns the directory of the programs of the module in the folder "server"
// beside the caller's file, built from the sources as they are. What cannot be built is
// [Missing].
func (m Module) Programs(t testing.TB) (dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), BuildTime)
	defer cancel()
	source, err := sources()
	if err == nil {
		dir, err = m.build(ctx, source)
	}
	if err != nil {
		Missing(t, m.Name+" cannot be built; let go test reach the Go module proxy once", err)
	}
	return dir
}

// Source returns the directory of a module that the module beside the caller's file
// requires.
func (m Module) Source(ctx context.Context, path string) (dir string, err error) {
	source, err := sources()
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "go", "-C", source, "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// sources is the folder "server" beside the file of the caller's caller.
func sources() (string, error) {
	_, file, _, ok := runtime.Caller(2)
	if !ok || !filepath.IsAbs(file) {
		return "", errors.New("the tests were built with -trimpath, so the sources are not found")
	}
	return filepath.Join(filepath.Dir(file), "server"), nil
}

func (m Module) build(ctx context.Context, source string) (string, error) {
	sum, err := m.checksum(source)
	if err != nil {
		return "", err
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, m.Name+"-"+sum)
	return dir, Once(ctx, dir, func(ctx context.Context, dir string) error {
		for _, path := range m.Packages {
			name := filepath.Base(path)
			if path == "." {
				name = m.Name
			}
			cmd := exec.CommandContext(ctx, "go", "build", "-C", source, "-tags", m.Tags, "-ldflags", "-s -w", "-o", filepath.Join(dir, name), path)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("go build -C %s %s: %w: %s", source, path, err, out)
			}
		}
		return nil
	})
}

// checksum is of all that the programs are made from, Go's version included.
func (m Module) checksum(source string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), m.Packages, m.Tags)
	files := 0
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		_, err = fmt.Fprintf(h, "%s %d\n%s", filepath.ToSlash(path[len(source):]), len(data), data)
		return err
	})
	if err == nil && files == 0 {
		err = errors.New("there are no sources in " + source)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), err
}
