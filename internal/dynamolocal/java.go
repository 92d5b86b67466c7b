// SPDX-License-Identifier: Apache-2.0

package dynamolocal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// minJava is the oldest Java that runs the emulator.
const minJava = 17

// javaPackage is Debian's, without anything graphical. Alone it has all that the
// emulator loads.
const javaPackage = "openjdk-17-jre-headless"

// installJava returns the path of a Java program.
func installJava(ctx context.Context) (string, error) {
	path, err := exec.LookPath("java")
	if err == nil && javaVersion(ctx, path) >= minJava {
		return path, nil
	}
	cache, err := testprogram.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, javaPackage)
	if err := testprogram.Once(ctx, dir, fetchJava); err != nil {
		return "", fmt.Errorf("installing Java: %w", err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "usr/lib/jvm/*/bin/java"))
	if err != nil || len(found) == 0 || javaVersion(ctx, found[0]) < minJava {
		return "", fmt.Errorf("%s has no Java that runs: remove it", dir)
	}
	return found[0], nil
}

// fetchJava unpacks Debian's package, whose origin apt has checked.
func fetchJava(ctx context.Context, dir string) error {
	if err := testprogram.UnpackDebian(ctx, dir, javaPackage); err != nil {
		return err
	}
	return relink(dir)
}

// relink makes the links to /etc, where the settings of an installed package
// are, point to those that were unpacked.
func relink(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return err
		}
		to, err := os.Readlink(path)
		if err != nil || !filepath.IsAbs(to) {
			return err
		}
		// The certificates and the manual are other packages' and not needed.
		if _, err := os.Stat(filepath.Join(dir, to)); errors.Is(err, fs.ErrNotExist) {
			return os.Remove(path)
		}
		rel, err := filepath.Rel(filepath.Dir(path), filepath.Join(dir, to))
		if err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		return os.Symlink(rel, path)
	})
}

var versionLine = regexp.MustCompile(`version "(\d+)`)

// javaVersion returns 0 for what is no Java that runs.
func javaVersion(ctx context.Context, path string) int {
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	m := versionLine.FindStringSubmatch(string(out))
	if err != nil || m == nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(m[1]))
	if err != nil {
		return 0
	}
	return n
}
