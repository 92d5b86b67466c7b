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
	"testing"

	"github.com/keyturn/keyturn/internal/testprogram"
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
		testprogram.Missing(t, hint, err)
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
