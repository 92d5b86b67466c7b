// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testnet"
)

// hostBlock is a block of a guide that is run on the host that it names, in the
// background where an "&" follows.
var hostBlock = regexp.MustCompile("(?s)```sh ([a-z0-9]+)( &)?\n(.*?)```")

// address is one of a host's. A background block listens on the first that it
// names.
var address = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+:[0-9]+`)

// bareIP is an address without a port, for programs that take them apart.
var bareIP = regexp.MustCompile(regexp.QuoteMeta(testnet.Prefix) + `[0-9]+`)

// scp stands for the one program of the guides that would need an account on every
// host: it copies into the directory of the host that is named.
const scp = `#!/bin/sh
set -eu
for last; do :; done
[ "$#" = 2 ]
[ -d "$HOSTS/${last%%:*}" ]
exec cp "$1" "$HOSTS/${last%%:*}/${last#*:}"
`

// guide is what the blocks of a page run on.
type guide struct {
	t     *testing.T
	dir   string // holds a directory for each host, and bin
	names []string
	hosts map[string]*testnet.Host
	// ports has, where hosts are not apart, what stands for ports that only root can
	// listen on, and env is more environment of all commands.
	ports map[string]string
	env   []string
	// below are the directories of the system that a host has in its own instead.
	below []string
	// after is called with each block that has ended, and what it said, where there is
	// something to look at.
	after func(block, out string)
}

// newGuide makes hosts, the first of which is 10.7.0.1.
func newGuide(t *testing.T, names ...string) *guide {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		const hint = "openssl is not installed; run: apt-get install openssl"
		if os.Getenv("CI") == "true" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	g := &guide{
		t: t, dir: t.TempDir(), names: names, hosts: make(map[string]*testnet.Host),
		ports: map[string]string{"80": "8080", "443": "8443"},
	}
	bin := filepath.Join(g.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", bin, "../cmd/keyturn", "../examples/server")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(bin, "scp"), []byte(scp), 0o700); err != nil {
		t.Fatal(err)
	}
	network := testnet.New(t)
	for _, name := range names {
		g.hosts[name] = network.Host(name)
		if err := os.Mkdir(filepath.Join(g.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// follow runs a page word by word, each block on its host, and returns the serial
// numbers that openssl printed.
func (g *guide) follow(page string) (serials []string) {
	g.t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		g.t.Fatal(err)
	}
	blocks := hostBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 8 {
		g.t.Fatalf("only %d blocks were found", len(blocks))
	}
	for _, b := range blocks {
		host, block := g.hosts[b[1]], g.local(b[1], b[3])
		switch {
		case host == nil:
			g.t.Fatalf("there is no host %q:\n%s", b[1], block)
		case b[2] != "":
			g.background(host, block)
		default:
			out := g.run(host, block)
			if g.after != nil {
				g.after(b[3], out)
			}
			for _, line := range strings.Split(out, "\n") {
				if serial, ok := strings.CutPrefix(line, "serial="); ok {
					serials = append(serials, serial)
				}
			}
		}
	}
	return serials
}

// local makes a block one for the host in this network: where hosts are not apart, they
// have other addresses, some other ports, and a name only if they are told one.
func (g *guide) local(host, block string) string {
	for _, dir := range g.below {
		block = strings.ReplaceAll(block, " "+dir, " "+filepath.Join(g.dir, host, dir)+"/")
	}
	if g.hosts["ops"].Apart {
		return block
	}
	byIP := make(map[string]string)
	for i, name := range g.names {
		byIP[testnet.Prefix+strconv.Itoa(i+1)] = name
	}
	block = address.ReplaceAllStringFunc(block, func(addr string) string {
		ip, port, err := net.SplitHostPort(addr)
		if err != nil || byIP[ip] == "" {
			return addr
		}
		return g.addr(byIP[ip], port)
	})
	block = bareIP.ReplaceAllStringFunc(block, func(ip string) string {
		if byIP[ip] == "" {
			return ip
		}
		return g.hosts[byIP[ip]].IP
	})
	return strings.ReplaceAll(block, " join -", ` join --name "$HOST" -`)
}

// addr is where in this network a port of a host is.
func (g *guide) addr(name, port string) string {
	h := g.hosts[name]
	if !h.Apart {
		port = cmp.Or(g.ports[port], port)
	}
	return net.JoinHostPort(h.IP, port)
}

// command runs a block in the host's directory, in a process group of its own.
func (g *guide) command(h *testnet.Host, block string) *exec.Cmd {
	program, args := h.Command("sh", []string{"-eu", "-c", block})
	cmd := exec.Command(program, args...)
	cmd.Dir = filepath.Join(g.dir, h.Name)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(g.dir, "bin")+":"+os.Getenv("PATH"), "HOSTS="+g.dir,
		"HOST="+h.Name, "XDG_STATE_HOME="+filepath.Join(cmd.Dir, "state"))
	cmd.Env = append(cmd.Env, g.env...)
	if !h.Apart {
		cmd.Env = append(cmd.Env, "KEYTURN_HTTP=127.0.0.1:0")
	}
	return cmd
}

func (g *guide) run(h *testnet.Host, block string) (out string) {
	g.t.Helper()
	text, err := g.command(h, block).CombinedOutput()
	g.t.Logf("on %s:\n%s\n%s", h.Name, block, text)
	if err != nil {
		g.t.Fatalf("on %s: %v", h.Name, err)
	}
	return string(text)
}

// background starts a block, and returns when it listens and, being a manager,
// answers. It has to end by itself when it is told to.
func (g *guide) background(h *testnet.Host, block string) {
	g.t.Helper()
	var errOut bytes.Buffer
	cmd := g.command(h, "exec "+block)
	cmd.Stderr = &errOut
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil && !terminated(cmd, block) || g.t.Failed() {
			g.t.Errorf("on %s: %s: %v\n%s", h.Name, block, err, errOut.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := g.ready(h, block)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("on %s: %s: %v", h.Name, block, err)
		}
	}
}

// terminated says whether a program of others has left SIGTERM to the system, having
// nothing to finish.
func terminated(cmd *exec.Cmd, block string) bool {
	ours := strings.HasPrefix(block, "keyturn ") || strings.HasPrefix(block, "server ")
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && !ours && status.Signaled() && status.Signal() == syscall.SIGTERM
}

func (g *guide) ready(h *testnet.Host, block string) error {
	if strings.HasPrefix(block, "keyturn serve") {
		out, err := g.command(h, "keyturn cert ls").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	conn, err := h.Dial(g.t.Context(), address.FindString(block))
	if err != nil {
		return err
	}
	return conn.Close()
}
