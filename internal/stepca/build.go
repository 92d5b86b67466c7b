// SPDX-License-Identifier: Apache-2.0

package stepca

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// buildTime bounds building, and waiting for another process that does it.
const buildTime = 15 * time.Minute

// program is the name of what is built.
const program = "step-ca"

// build returns the path of the program, built from the sources as they are.
func build(ctx context.Context) (string, error) {
	source, err := sourceDir()
	if err != nil {
		return "", err
	}
	sum, err := checksum(source)
	if err != nil {
		return "", err
	}
	cache, err := testprogram.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, program+"-"+sum)
	err = testprogram.Once(ctx, dir, func(ctx context.Context, dir string) error {
		// Of its data bases the tests use one.
		cmd := exec.CommandContext(ctx, "go", "build", "-C", source,
			"-tags", "nobadger,nomysql,nopgx", "-o", filepath.Join(dir, program), ".")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build -C %s: %w: %s", source, err, out)
		}
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("building step-ca: %w", err)
	}
	return filepath.Join(dir, program), nil
}

// sourceDir is the module beside this file.
func sourceDir() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return "", errors.New("building step-ca: the tests were built with -trimpath, so its sources are not found")
	}
	return filepath.Join(filepath.Dir(file), "server"), nil
}

// checksum is of all that the program is made from, Go's version included.
func checksum(source string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version())
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		data, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}
