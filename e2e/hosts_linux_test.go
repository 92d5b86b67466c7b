// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	sys "golang.org/x/sys/unix"
)

// A network has hosts that reach each other: network namespaces behind a bridge
// of their own where the machine allows them, else loopback addresses.
type network struct {
	t      *testing.T
	prefix string // of the namespaces' names; "" without namespaces
	hosts  int
}

// A host has an address and a state directory of its own.
type host struct {
	*sandbox
	name      string
	ip        string
	namespace string // "" without namespaces
}

// newNetwork makes a network. That there are no namespaces is told, and no
// reason to skip: addresses stay apart on loopback, too.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t}
	prefix := fmt.Sprintf("kt%d-", os.Getpid()%100000)
	if err := ip("netns", "add", prefix+"hub"); err != nil {
		t.Logf("no network namespaces here (%v): the hosts are loopback addresses", err)
		return n
	}
	n.prefix = prefix
	t.Cleanup(func() { n.remove("hub") })
	for _, args := range [][]string{
		{"-n", prefix + "hub", "link", "add", "br", "type", "bridge"},
		{"-n", prefix + "hub", "link", "set", "br", "up"},
	} {
		if err := ip(args...); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *network) remove(name string) {
	if err := ip("netns", "del", n.prefix+name); err != nil {
		n.t.Error(err)
	}
}

// host adds a host.
func (n *network) host(name string) *host {
	n.t.Helper()
	n.hosts++
	h := &host{sandbox: newSandbox(n.t), name: name, ip: fmt.Sprintf("127.0.7.%d", n.hosts)}
	h.data = filepath.Join(h.state, "keyturn")
	if n.prefix == "" {
		return h
	}
	h.ip, h.namespace = fmt.Sprintf("10.7.0.%d", n.hosts), n.prefix+name
	hub, port := n.prefix+"hub", fmt.Sprintf("v%d", n.hosts)
	if err := ip("netns", "add", h.namespace); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { n.remove(name) })
	for _, args := range [][]string{
		{"-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", h.namespace},
		{"-n", hub, "link", "set", port, "master", "br", "up"},
		{"-n", h.namespace, "addr", "add", h.ip + "/24", "dev", "eth0"},
		{"-n", h.namespace, "link", "set", "eth0", "up"},
		{"-n", h.namespace, "link", "set", "lo", "up"},
	} {
		if err := ip(args...); err != nil {
			n.t.Fatal(err)
		}
	}
	h.wrap = func(program string, args []string) (string, []string) {
		return "/usr/bin/env", append([]string{"ip", "netns", "exec", h.namespace, program}, args...)
	}
	return h
}

func ip(args ...string) error {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// dial connects from the host itself.
func (h *host) dial(addr string) (net.Conn, error) {
	if h.namespace == "" {
		return net.DialTimeout("tcp", addr, patience)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// The thread is in another namespace afterwards, and ends with the goroutine.
		runtime.LockOSThread()
		conn, err := h.dialThere(addr)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// dialThere uses the thread's namespace, which net.Dial, with goroutines of its
// own, would not surely do.
func (h *host) dialThere(addr string) (net.Conn, error) {
	ns, err := os.Open("/run/netns/" + h.namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := sys.Setns(int(ns.Fd()), syscall.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("entering %s: %w", h.namespace, err)
	}
	to, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, err
	}
	fd, err := sys.Socket(sys.AF_INET, sys.SOCK_STREAM|sys.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), addr)
	defer file.Close()
	if err := sys.Connect(fd, &sys.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", addr, err)
	}
	return net.FileConn(file)
}
