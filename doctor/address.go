// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// DefaultPort is the port of an address that has none.
const DefaultPort = "443"

// ParseAddress reads what people write for a server and returns it as HOST:PORT, with
// an IPv6 host in brackets. It takes HOST, HOST:PORT, an IPv6 address with brackets or
// without, and a URL, of which scheme and path are left out. Without a port it is 443.
func ParseAddress(s string) (string, error) {
	text := strings.TrimSpace(s)
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil {
			// The error repeats the whole URL.
			return "", fmt.Errorf("doctor: address %s is not a URL; write HOST:PORT", quote(s))
		}
		if u.Scheme == "http" {
			return "", fmt.Errorf("doctor: address %s is of plain HTTP, which has no certificate; write https://… or HOST:PORT", quote(s))
		}
		text = u.Host
	}
	host, port := text, DefaultPort
	literal := text
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		literal = text[1 : len(text)-1]
	}
	if ip, err := netip.ParseAddr(literal); err == nil {
		host = ip.String()
	} else if strings.Contains(text, ":") {
		if host, port, err = net.SplitHostPort(text); err != nil {
			return "", fmt.Errorf("doctor: address %s is not HOST:PORT; an IPv6 address with a port is written as in [::1]:443", quote(s))
		}
	}
	if err := checkHost(host); err != nil {
		return "", fmt.Errorf("doctor: address %s: %w", quote(s), err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("doctor: address %s: the port is %s; it is a number from 1 to 65535", quote(s), quote(port))
	}
	return net.JoinHostPort(host, port), nil
}

// checkHost refuses what can be no host. What the DNS thinks of it is seen later.
func checkHost(host string) error {
	const most = 255 // RFC 1035, section 2.3.4
	switch {
	case host == "":
		return errors.New("there is no host")
	case len(host) > most:
		return errors.New("the host is longer than a DNS name can be")
	case strings.ContainsAny(host, "/@?# []\\") || !printable(host):
		return errors.New("the host has characters that no DNS name has; write HOST:PORT")
	}
	return nil
}

// nameOf is the name that a certificate for the host must cover: without the zone of an
// IPv6 address, and without the dot at the end.
func nameOf(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.WithZone("").String()
	}
	return strings.TrimSuffix(host, ".")
}

func isIP(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}
