// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

var shBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestOperating runs the commands of operating.md: the first block, which is
// the server, in the background, and the others one after the other.
func TestOperating(t *testing.T) {
	text, err := os.ReadFile("operating.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := shBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 || !strings.HasPrefix(blocks[0][1], "keyturn serve") {
		t.Fatalf("%d blocks, the first of which is not the server", len(blocks))
	}
	dir, state := t.TempDir(), t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "keyturn"), "../cmd/keyturn").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	env := append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "XDG_STATE_HOME="+state)

	serve := exec.Command("sh", "-c", "exec "+blocks[0][1])
	serve.Env = append(env, "KEYTURN_NATS=127.0.0.1:0", "KEYTURN_HTTP=127.0.0.1:0")
	serve.Stderr = os.Stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		if err := serve.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		ls := exec.Command(filepath.Join(dir, "keyturn"), "group", "ls") // its first group is the last that a new server makes
		ls.Env = env
		if out, err := ls.CombinedOutput(); err == nil && bytes.Contains(out, []byte("default")) {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %s", out)
		}
	}
	for _, b := range blocks[1:] {
		sh := exec.Command("sh", "-eu", "-c", b[1])
		sh.Env = env
		out, err := sh.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s\n%s", err, b[1], out)
		}
		t.Logf("%s", out)
	}
}
