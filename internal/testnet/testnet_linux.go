// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Prefix is what the addresses of hosts that are apart start with: the first
// host is 10.7.0.1, the second 10.7.0.2.
const Prefix = "10.7.0."

// A Network is hosts that reach each other, and nobody else.
type Network struct {
	t     testing.TB
	hub   int // process that holds the bridge; 0 where the hosts are loopback addresses
	hosts int
}

// A Host is one of them.
type Host struct {
	// Name is also the name that programs on the host find, where it is Apart.
	Name string
	IP   string
	// Apart says that the host has a network of its own: whatever other hosts, or
	// the machine, listen on does not matter there, 127.0.0.1 included.
	Apart bool

	process int // that holds the host's namespaces; 0 unless Apart
}

// New makes a network, which goes away with the test, or with its process,
// whatever ends that. That there are no namespaces is told, and no reason to skip
// a test.
func New(t testing.TB) *Network {
	t.Helper()
	n := &Network{t: t}
	hub, err := hold(t)
	if err != nil {
		t.Logf("the hosts are loopback addresses, since there are no network namespaces here: %v", err)
		return n
	}
	for _, args := range []string{"link add name bridge0 type bridge", "link set bridge0 up"} {
		if err := in(hub, "ip", strings.Fields(args)...); err != nil {
			t.Logf("the hosts are loopback addresses, since there is no bridge here: %v", err)
			return n
		}
	}
	n.hub = hub
	return n
}

// Host adds a host.
func (n *Network) Host(name string) *Host {
	n.t.Helper()
	n.hosts++
	if n.hub == 0 {
		return &Host{Name: name, IP: loopback()}
	}
	h := &Host{Name: name, IP: Prefix + strconv.Itoa(n.hosts), Apart: true}
	var err error
	if h.process, err = hold(n.t); err != nil {
		n.t.Fatal(err)
	}
	port := "port" + strconv.Itoa(n.hosts)
	for _, step := range []struct {
		at   int
		args string
	}{
		{n.hub, fmt.Sprintf("ip link add name %s type veth peer name eth0 netns %d", port, h.process)},
		{n.hub, "ip link set " + port + " master bridge0 up"},
		{h.process, "ip addr add " + h.IP + "/24 dev eth0"},
		{h.process, "ip link set eth0 up"},
		{h.process, "ip link set lo up"},
	} {
		args := strings.Fields(step.args)
		if err := in(step.at, args[0], args[1:]...); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := h.there(func() error { return unix.Sethostname([]byte(name)) }); err != nil {
		n.t.Fatal(err)
	}
	return h
}

// loopbacks counts the hosts of this process that are not apart.
var loopbacks atomic.Uint32

// loopback returns the address of a host that is not apart. Tests that run at once
// have different ones, in other processes, too.
func loopback() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+pid>>8%254, pid%256, 1+(loopbacks.Add(1)-1)%254)
}

// hold starts a process with namespaces of its own, which end with it. It lives
// until the pipe to it is closed, by the test's end or by that of the test's
// process: nothing has a name that could be left over.
func hold(t testing.TB) (pid int, err error) {
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	t.Cleanup(func() {
		_ = pipe.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the process that held a host: %v", err)
		}
	})
	return cmd.Process.Pid, nil
}

// inside is the command that runs another in the namespaces of a process. It is
// the same process afterwards.
func inside(process int, program string, args []string) (string, []string) {
	return "nsenter", append([]string{"--target", strconv.Itoa(process), "--net", "--uts", "--", program}, args...)
}

func in(process int, program string, args ...string) error {
	name, all := inside(process, program, args)
	out, err := exec.Command(name, all...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Command returns the command that runs a program on the host. The program's
// process is that of the command.
func (h *Host) Command(program string, args []string) (string, []string) {
	if !h.Apart {
		return program, args
	}
	return inside(h.process, program, args)
}

// dialTimeout bounds a connection that does not come about.
const dialTimeout = 10 * time.Second

// Dial connects from the host to a TCP address, with an IP address in it.
func (h *Host) Dial(ctx context.Context, addr string) (conn net.Conn, err error) {
	dialer := &net.Dialer{Timeout: dialTimeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(h.IP)}}
	err = h.there(func() error {
		conn, err = dialer.DialContext(ctx, "tcp", addr)
		return err
	})
	return conn, err
}

// Listen listens on a port of the host's address; 0 is any.
func (h *Host) Listen(port int) (l net.Listener, err error) {
	err = h.there(func() error {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(h.IP), Port: port})
		return err
	})
	return l, err
}

// ListenPacket is Listen over UDP.
func (h *Host) ListenPacket(port int) (p net.PacketConn, err error) {
	err = h.there(func() error {
		p, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(h.IP), Port: port})
		return err
	})
	return p, err
}

// there runs f on the host, to whose network belong the sockets that it
// makes. It must make them in its own goroutine, as package net does for IP addresses.
func (h *Host) there(f func() error) error {
	if !h.Apart {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		// The thread ends with the goroutine, which does not unlock it.
		runtime.LockOSThread()
		err := h.enter()
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// enter moves the thread into the host's namespaces.
func (h *Host) enter() error {
	for kind, flag := range map[string]int{"net": unix.CLONE_NEWNET, "uts": unix.CLONE_NEWUTS} {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", h.process, kind))
		if err != nil {
			return err
		}
		err = unix.Setns(int(ns.Fd()), flag)
		_ = ns.Close() // nothing was written
		if err != nil {
			return fmt.Errorf("entering %s: %w", h.Name, err)
		}
	}
	return nil
}
