// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestProxyReuseport has successors take the port over, each while its predecessor still
// runs: no connection is refused or reset.
func TestProxyReuseport(t *testing.T) {
	s := newStage(t)
	address, admin := freeAddress(t), freeAddress(t)
	args := []string{"--listen", address, "--reuseport", "--drain-delay", "2s"}
	p := s.start(t, admin, args...)
	l := newLoad(t)
	l.http(s, "https://"+address)
	for range 3 {
		successor := s.start(t, admin, args...)
		p.end(t)
		p = successor
	}
	l.stopAt(100)
	p.end(t)
}

// A socket is one of systemd's, whose part the test plays.
type socket struct {
	address string
	file    *os.File
}

func newSocket(t *testing.T, address string) *socket {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return &socket{l.Addr().String(), file}
}

// command is keyturn, which gets the socket under a name.
func (s *socket) command(name string, args ...string) *exec.Cmd {
	// LISTEN_PID is the process itself, which is what sh becomes.
	cmd := exec.Command("sh", append([]string{"-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec keyturn "$@"`, "keyturn"}, args...)...)
	cmd.Env = append(os.Environ(), "LISTEN_FDNAMES="+name)
	cmd.ExtraFiles = []*os.File{s.file}
	return cmd
}

// TestProxySocket has systemd's part played by this process: it holds the socket while the
// proxy is started anew.
func TestProxySocket(t *testing.T) {
	s := newStage(t)
	admin := freeAddress(t)
	socket := newSocket(t, "127.0.0.1:0")
	start := func() *proxyProcess {
		return s.run(t, admin, socket.command("https", append(s.args(admin), "--listen", "127.0.0.1:1", "--drain-delay", "none")...))
	}
	p := start()
	l := newLoad(t)
	url := "https://" + socket.address
	for version := 1; version <= 2; version++ {
		c := s.client(l, version, false)
		l.keep(fmt.Sprintf("new connections, HTTP/%d", version), func() error { return get(c, url, "") })
	}
	for range 10 {
		time.Sleep(100 * time.Millisecond) // the load goes on
		p.end(t)
		p = start()
	}
	l.stopAt(20)
	p.end(t)
}
