// SPDX-License-Identifier: Apache-2.0

package testprogram

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestOnce holds that an installation that was cut off is done again, and that
// of several at once one does it.
func TestOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := os.MkdirAll(filepath.Join(dir+".part", "rest"), 0o700); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			err := Once(ctx, dir, func(_ context.Context, dir string) error {
				calls.Add(1)
				if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
					t.Errorf("the rest of a cut-off installation is there: %v, %v", files, err)
				}
				return os.WriteFile(filepath.Join(dir, "done"), nil, 0o600)
			})
			if _, missing := os.Stat(filepath.Join(dir, "done")); err != nil || missing != nil {
				t.Errorf("not installed: %v, %v", err, missing)
			}
		})
	}
	all.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("installed %d times", n)
	}
}
