// SPDX-License-Identifier: Apache-2.0

package embedded_test

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// listening returns the ports on which this process listens, TCP and UDP, as
// the kernel knows them.
func listening(t *testing.T) []int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	own := make(map[string]bool)
	for _, l := range links {
		if target, err := os.Readlink(l); err == nil { // the directory's own is gone by now
			own[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
		}
	}
	var ports []int
	for table, state := range map[string]string{"tcp": "0A", "tcp6": "0A", "udp": "07", "udp6": "07"} {
		text, err := os.ReadFile("/proc/self/net/" + table)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line) // number, local address, remote address, state, …, inode
			if len(f) < 10 || f[3] != state || !own[f[9]] {
				continue
			}
			_, hex, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			ports = append(ports, int(port))
		}
	}
	slices.Sort(ports)
	return ports
}

// TestOneListener: the documented one, and nothing else, while a fleet works.
func TestOneListener(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		before := listening(t)
		e := startOn(t, t.TempDir(), addr)
		e.open(t)
		u, err := url.Parse(e.server.URL())
		if err != nil {
			t.Fatal(err)
		}
		port, err := strconv.Atoi(u.Port())
		if err != nil {
			t.Fatal(err)
		}
		want := append(slices.Clone(before), port)
		slices.Sort(want)
		if got := listening(t); !slices.Equal(got, want) {
			t.Errorf("on %s: listens on %v, want %v", addr, got, want)
		}
		e.server.Shutdown()
	}
}
