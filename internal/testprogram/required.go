// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Required returns the directory that holds the program name, built from a package of
// a module that this module requires, in that version. What cannot be built is
// [Missing].
func Required(t testing.TB, path, name string) (dir string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), BuildTime)
	defer cancel()
	dir, err := required(ctx, path, name)
	if err != nil {
		Missing(t, name+" cannot be built; let go test reach the Go module proxy once", err)
	}
	return dir
}

func required(ctx context.Context, path, name string) (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(file) {
		return "", errors.New("the tests were built with -trimpath, so the module is not found")
	}
	here := filepath.Dir(file) // in this module, whoever asks
	out, err := exec.CommandContext(ctx, "go", "list", "-C", here, "-f", "{{.Module.Version}}", path).Output()
	if err != nil {
		return "", fmt.Errorf("go list %s: %w", path, err)
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, fmt.Sprintf("%s-%s-%s", name, strings.TrimSpace(string(out)), runtime.Version()))
	return dir, Once(ctx, dir, func(ctx context.Context, dir string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-C", here, "-ldflags", "-s -w", "-o", filepath.Join(dir, name), path)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w: %s", path, err, out)
		}
		return nil
	})
}
