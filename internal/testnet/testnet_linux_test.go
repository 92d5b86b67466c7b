// SPDX-License-Identifier: Apache-2.0

package testnet

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
)

// TestNetwork has one host say its name to another. It holds in both kinds of
// network.
func TestNetwork(t *testing.T) {
	check(t, New(t))
	t.Run("Loopback", func(t *testing.T) { check(t, &Network{t: t}) })
}

func check(t *testing.T, n *Network) {
	t.Helper()
	a, b := n.Host("one"), n.Host("two")
	if a.IP == b.IP {
		t.Fatalf("both hosts are %s", a.IP)
	}
	l, err := a.Listen(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := b.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if ip := other.RemoteAddr().(*net.TCPAddr).IP.String(); ip != b.IP {
		t.Errorf("%s connected, want %s", ip, b.IP)
	}
	if _, err := io.WriteString(other, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
	packets, err := a.ListenPacket(0)
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	if ip := packets.LocalAddr().(*net.UDPAddr).IP.String(); ip != a.IP {
		t.Errorf("packets are for %s, want %s", ip, a.IP)
	}
	if _, err := b.Dial(t.Context(), b.IP+":1"); err == nil {
		t.Error("a connection to where nobody listens")
	}
	if !a.Apart {
		return
	}
	name, args := a.Command("uname", []string{"-n"})
	if out, err := exec.Command(name, args...).Output(); err != nil || strings.TrimSpace(string(out)) != "one" {
		t.Errorf("the host's name is %q, %v", out, err)
	}
}
