// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// A program is how Knot DNS is run.
type program struct {
	path      string // of knotd
	libraries string // a directory of its own libraries; "" if they are installed
}

// install returns the Knot DNS that is on PATH, else one that is unpacked in the
// cache.
func install(ctx context.Context) (program, error) {
	if path, err := exec.LookPath("knotd"); err == nil {
		return program{path: path}, nil
	}
	cache, err := testprogram.CacheDir()
	if err != nil {
		return program{}, err
	}
	dir := filepath.Join(cache, "knot")
	if err := testprogram.Once(ctx, dir, fetch); err != nil {
		return program{}, fmt.Errorf("installing Knot DNS: %w", err)
	}
	libraries, err := filepath.Glob(filepath.Join(dir, "usr/lib/*/libknot.so.*"))
	if err != nil || len(libraries) == 0 {
		return program{}, fmt.Errorf("%s has no Knot DNS: remove it", dir)
	}
	return program{filepath.Join(dir, "usr/sbin/knotd"), filepath.Dir(libraries[0])}, nil
}

// toInstall finds the packages in what apt would do: "Inst libknot13 (3.2.6-1 …)".
var toInstall = regexp.MustCompile(`(?m)^Inst (\S+) \(`)

// fetch unpacks Knot DNS and what it needs that is not installed.
func fetch(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "apt-get", "install", "--simulate", "--no-install-recommends", "knot")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("apt-get install --simulate knot: %w: %s", err, said.String())
	}
	var packages []string
	for _, m := range toInstall.FindAllSubmatch(out, -1) {
		packages = append(packages, string(m[1]))
	}
	if len(packages) == 0 {
		return errors.New("apt-get would install nothing for knot")
	}
	return testprogram.UnpackDebian(ctx, dir, packages...)
}
