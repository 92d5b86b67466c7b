// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

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
