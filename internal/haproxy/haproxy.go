// SPDX-License-Identifier: Apache-2.0

// Package haproxy runs HAProxy for tests, in front of what they start.
package haproxy

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testprogram"
)

var program = testprogram.Debian{Name: "HAProxy", Package: "haproxy", Path: "usr/sbin/haproxy"}

// startTime bounds waiting for HAProxy.
const startTime = 30 * time.Second

// Start runs HAProxy with a configuration, and returns when something answers on the
// loopback address that the configuration listens on. It ends with the test.
func Start(t testing.TB, configuration, address string) {
	t.Helper()
	haproxy := program.Installed(t)
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer // read when it has ended
	cmd := exec.Command(haproxy.Path, "-db", "-f", file)
	cmd.Env, cmd.Stdout, cmd.Stderr = haproxy.Environ(), &out, &out
	ended, err := testprogram.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended already, or ends now
		<-ended
		if t.Failed() {
			t.Logf("HAProxy said:\n%s", out.Bytes())
		}
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(startTime); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatalf("HAProxy ended: %s", out.Bytes())
		}
		if time.Now().After(end) {
			t.Fatalf("HAProxy does not answer: %v", err)
		}
	}
}
