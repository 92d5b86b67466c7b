// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// TestProxyHangup reloads a proxy that reads nothing from files: it goes on.
func TestProxyHangup(t *testing.T) {
	admin := freeAddress(t)
	p := &proxyProcess{cmd: exec.Command("keyturn", "proxy", "--to", "127.0.0.1:1", "--listen", "127.0.0.1:0", "--admin", admin, "--drain-delay", "none",
		"--issuer", "cfssl", "--issuer-set", "address=http://127.0.0.1:1", "--name", "localhost")}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	var err error
	if p.ended, err = testprogram.Start(p.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", admin)
		if err == nil {
			_ = c.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not serve")
		}
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.end(t)
}

// TestProxyAdminSocket holds that an admin socket of systemd has to be on loopback, too.
func TestProxyAdminSocket(t *testing.T) {
	s := newStage(t)
	cmd := newSocket(t, "0.0.0.0:0").command("admin", append(s.args("127.0.0.1:1"), "--listen", "127.0.0.1:0")...)
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	ended, err := testprogram.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		_ = cmd.Process.Kill()
		<-ended
	}
	if cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(out.String(), "only loopback addresses are served") {
		t.Errorf("%d, %s", cmd.ProcessState.ExitCode(), out)
	}
}
