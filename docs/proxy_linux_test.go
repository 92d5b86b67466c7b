// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/testprogram"
)

var proxyBlock = regexp.MustCompile("(?s)```sh( &)?\n(.*?)```")

// TestProxy runs the commands of proxy.md, on ports that are free, and has its files checked.
func TestProxy(t *testing.T) {
	text, err := os.ReadFile("proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "keyturn"), "../cmd/keyturn").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(service.Close)
	ports := []string{"127.0.0.1:8080", service.Listener.Addr().String()}
	for _, port := range []string{"8443", "8444", "9180", "9181"} {
		free, err := testprogram.FreePort("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, ":"+port, fmt.Sprintf(":%d", free))
	}
	here := strings.NewReplacer(ports...)
	command := func(block string) *exec.Cmd {
		cmd := exec.Command("sh", "-eu", "-c", here.Replace(block))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "KEYTURN_PROXY_DRAIN_DELAY=1s", "KEYTURN_PROXY_ADMIN="+here.Replace("127.0.0.1:9180"))
		return cmd
	}
	blocks := proxyBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 5 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, b := range blocks {
		if b[1] != "" {
			background(t, command("exec "+b[2]))
			continue
		}
		out, err := command(b[2]).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, b[2], out)
		}
		if strings.HasPrefix(b[2], "curl") && !bytes.Contains(out, []byte("hello")) {
			t.Errorf("%s", out)
		}
	}
	files := yamlBlock.FindAllStringSubmatch(string(text), -1)
	if len(files) != 4 {
		t.Fatalf("%d files", len(files))
	}
	for _, f := range files {
		file := filepath.Join(dir, "proxy.yaml")
		if err := os.WriteFile(file, []byte(f[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := command("keyturn proxy --config proxy.yaml --check").CombinedOutput()
		if strings.Contains(f[1], "dir:") && bytes.Contains(out, []byte("/var/lib/keyturn-replica")) {
			continue // nothing is joined here
		}
		if err != nil {
			t.Errorf("%v\n%s\n%s", err, f[1], out)
		}
	}
	for _, s := range config.ProxySettings() {
		if !bytes.Contains(text, []byte("`"+s.Key+"`")) {
			t.Errorf("proxy.md does not tell of %s", s.Key)
		}
	}
}

// background starts a proxy, and returns when it says that it serves. It ends with the test,
// without an error.
func background(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	serves, ended := make(chan bool), make(chan string)
	go func() {
		var all bytes.Buffer
		buffer := make([]byte, 4096)
		for told := false; ; {
			n, err := said.Read(buffer)
			all.Write(buffer[:n])
			if !told && bytes.Contains(all.Bytes(), []byte("keyturn proxy serves")) {
				told = true
				close(serves)
			}
			if err != nil {
				ended <- all.String()
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		text := <-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %s", err, text)
		}
	})
	select {
	case <-serves:
	case <-time.After(time.Minute):
		t.Fatal("it does not serve")
	}
}
