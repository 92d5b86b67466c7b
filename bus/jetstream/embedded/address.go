// SPDX-License-Identifier: Apache-2.0

package embedded

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"
)

// An address is where the server listens.
type address struct {
	host string // an IP address, or "localhost"
	port int    // server.RANDOM_PORT for any free one
}

func parseAddress(s string) (address, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, fmt.Errorf("embedded bus: the address %q is not HOST:PORT", s)
	}
	if host != "localhost" && net.ParseIP(host) == nil {
		return address{}, fmt.Errorf("embedded bus: %q is not an IP address to listen on (0.0.0.0 and [::] are all of this machine)", host)
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return address{}, fmt.Errorf("embedded bus: %q is not a port", p)
	}
	if port == 0 {
		return address{host, server.RANDOM_PORT}, nil
	}
	return address{host, int(port)}, nil
}

// local reports whether nobody but this machine can reach the address.
func (a address) local() bool { return a.host == "localhost" || net.ParseIP(a.host).IsLoopback() }

// all reports whether the address stands for all of this machine.
func (a address) all() bool { return net.ParseIP(a.host).IsUnspecified() }

// free says early, and in words, that the address is taken, or not this
// machine's.
func (a address) free() error {
	addr := net.JoinHostPort(a.host, strconv.Itoa(max(a.port, 0))) // server.RANDOM_PORT is -1
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("embedded bus: %s: %w", addr, ErrAddressInUse)
	}
	if err != nil {
		return fmt.Errorf("embedded bus: %w", err)
	}
	return l.Close()
}

// near is the host by which this machine reaches the address.
func (a address) near() string {
	switch {
	case !a.all():
		return a.host
	case strings.Contains(a.host, ":"):
		return "::1"
	}
	return "127.0.0.1"
}

// hosts returns the names and addresses by which other machines reach the
// address, where nothing says otherwise.
func (a address) hosts() ([]string, error) {
	if !a.all() {
		return []string{a.host}, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("embedded bus: which addresses this machine has: %w", err)
	}
	var hosts, six []string
	for _, addr := range addrs {
		n, ok := addr.(*net.IPNet)
		switch {
		case !ok || !n.IP.IsGlobalUnicast(): // loopback, link-local
		case n.IP.To4() != nil:
			hosts = append(hosts, n.IP.String())
		case strings.Contains(a.host, ":"):
			six = append(six, n.IP.String())
		}
	}
	hosts = append(hosts, six...)
	name, err := os.Hostname()
	if err == nil && checkHost(name) == nil && !slices.Contains(hosts, name) {
		hosts = append(hosts, name)
	}
	return hosts, nil
}

// checkHost refuses what is neither an IP address nor a host's name.
func checkHost(s string) error {
	if net.ParseIP(s) != nil {
		return nil
	}
	if s == "" || len(s) > 253 || strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) {
		return fmt.Errorf("embedded bus: %q is neither a host's name nor an IP address", s)
	}
	return nil
}
