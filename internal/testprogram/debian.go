// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A Debian is a program of one of Debian's packages.
type Debian struct {
	// Name is what people call it.
	Name, Package string
	// Path is where the package has it, such as "usr/sbin/haproxy".
	Path string
}

// An Installed program is how one is run.
type Installed struct {
	Path string
	// Dir is where its package was unpacked; "" is the system's.
	Dir string
	// Libraries is a directory of libraries of its own, for LD_LIBRARY_PATH; "" where
	// it needs none.
	Libraries string
}

// Environ is this process's, with what the program needs.
func (i Installed) Environ() []string {
	if i.Libraries == "" {
		return os.Environ()
	}
	return append(os.Environ(), "LD_LIBRARY_PATH="+i.Libraries)
}

// installTime bounds waiting for an installation, another process's included.
const installTime = 5 * time.Minute

// Installed returns the program that is on PATH, else one that is unpacked in the
// cache, with what it needs that is not installed. Where it cannot be had, the test is
// skipped, and told how to get it.
func (d Debian) Installed(t testing.TB) Installed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), installTime)
	defer cancel()
	i, err := d.install(ctx)
	if err != nil {
		Missing(t, fmt.Sprintf("%s cannot be had; run: apt-get install %s", d.Name, d.Package), err)
	}
	return i
}

func (d Debian) install(ctx context.Context) (i Installed, err error) {
	if path, err := exec.LookPath(filepath.Base(d.Path)); err == nil {
		return Installed{Path: path}, nil
	}
	cache, err := CacheDir()
	if err != nil {
		return i, err
	}
	dir := filepath.Join(cache, d.Package)
	if err := Once(ctx, dir, d.fetch); err != nil {
		return i, fmt.Errorf("installing %s: %w", d.Name, err)
	}
	i = Installed{Path: filepath.Join(dir, d.Path), Dir: dir}
	if _, err := os.Stat(i.Path); err != nil {
		return i, fmt.Errorf("%s has no %s, so remove it: %w", dir, d.Name, err)
	}
	libraries, err := filepath.Glob(filepath.Join(dir, "usr/lib/*-linux-*"))
	if err == nil && len(libraries) > 0 {
		i.Libraries = libraries[0]
	}
	return i, err
}

// toInstall finds the packages in what apt would do: "Inst haproxy (2.6.12-1 …)".
var toInstall = regexp.MustCompile(`(?m)^Inst (\S+) `)

// fetch unpacks the program and what it needs that is not installed.
func (d Debian) fetch(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "apt-get", "install", "--simulate", "--no-install-recommends", d.Package)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("apt-get install --simulate %s: %w: %s", d.Package, err, said.String())
	}
	var packages []string
	for _, m := range toInstall.FindAllSubmatch(out, -1) {
		packages = append(packages, string(m[1]))
	}
	if len(packages) == 0 {
		return errors.New("apt-get would install nothing for " + d.Package)
	}
	return UnpackDebian(ctx, dir, packages...)
}

// UnpackDebian fetches packages of Debian, whose origin apt checks, and unpacks
// them in dir. That needs no root rights, and installs nothing.
func UnpackDebian(ctx context.Context, dir string, packages ...string) error {
	get := exec.CommandContext(ctx, "apt-get", append([]string{"download"}, packages...)...)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get download %s: %w: %s", packages, err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != len(packages) {
		return fmt.Errorf("apt-get download %s brought %d packages", packages, len(debs))
	}
	for _, deb := range debs {
		if out, err := exec.CommandContext(ctx, "dpkg", "-x", deb, dir).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg -x %s: %w: %s", deb, err, out)
		}
		if err := os.Remove(deb); err != nil {
			return err
		}
	}
	return nil
}
