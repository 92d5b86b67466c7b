// SPDX-License-Identifier: Apache-2.0

package dynamolocal

import (
	"context"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestStartAndRestart(t *testing.T) {
	s := Start(t)
	if !answers(t.Context(), s.Endpoint) {
		t.Fatal("it does not answer")
	}
	if other := Shared(t); other.Endpoint == s.Endpoint || Shared(t) != other {
		t.Fatal("the shared emulator is not one of its own")
	}
	s.Restart(t)
	if !answers(t.Context(), s.Endpoint) {
		t.Fatal("it does not answer after a restart")
	}
	s.stop()
	if answers(t.Context(), s.Endpoint) {
		t.Fatal("it answers although it was ended")
	}
}

// TestJavaWithoutRoot runs the emulator on a Java that is not installed: PATH has
// what unpacks it, and no Java.
func TestJavaWithoutRoot(t *testing.T) {
	bin := t.TempDir()
	for _, program := range []string{"apt-get", "dpkg", "dpkg-deb", "tar", "npm", "rm"} {
		path, err := exec.LookPath(program)
		if err != nil {
			if program == "apt-get" {
				t.Log("this is no Debian: Java has to be installed")
				return
			}
			continue
		}
		if err := os.Symlink(path, filepath.Join(bin, program)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	ctx, cancel := context.WithTimeout(t.Context(), installTime)
	defer cancel()
	java, err := installJava(ctx)
	if err != nil {
		missing(t, err)
	}
	root, _, _ := strings.Cut(java, "/usr/lib/jvm/")
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == fs.ModeSymlink {
			to, err := filepath.EvalSymlinks(path)
			if err != nil || !strings.HasPrefix(to, root) {
				t.Errorf("%s leads to %s (%v): the machine's, not the unpacked one", path, to, err)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := Start(t)
	if s.cmd.Path != java {
		t.Fatalf("it runs on %s, not on %s", s.cmd.Path, java)
	}
}

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
			err := once(ctx, dir, func(_ context.Context, dir string) error {
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

func TestOtherPackageIsRefused(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("something else")) // a failure shows at the client
	}))
	defer other.Close()
	err := download(t.Context(), other.URL, filepath.Join(t.TempDir(), "x"))
	if err == nil || !strings.Contains(err.Error(), npmSHA256) {
		t.Fatalf("another package was taken: %v", err)
	}
}
