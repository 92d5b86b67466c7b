// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
)

// A Target is the service that requests are passed on to. ParseTarget makes one.
type Target struct {
	text             string
	network, address string // for net.Dial
	host             string // of requests that name none
	http2            bool   // by prior knowledge, without TLS
}

// ParseTarget reads where a service is:
//
//   - HOST:PORT, or http://HOST with or without :PORT, for HTTP/1.1;
//   - unix:PATH, for HTTP/1.1 over the socket PATH;
//   - h2c://HOST:PORT, for HTTP/2 without TLS, as gRPC servers speak it.
func ParseTarget(s string) (Target, error) {
	t := Target{text: s, network: "tcp"}
	if !strings.HasPrefix(s, "unix:") && strings.Contains(s, "@") { // which may be a secret, and is not shown
		return Target{}, errors.New("the target has a user or a password in it: clients send theirs, and this proxy has none")
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return Target{}, fmt.Errorf("%.200q has no absolute path, as in unix:/run/app.sock", s)
		}
		t.network, t.address, t.host = "unix", path, "localhost"
		return t, nil
	}
	rest, port := s, ""
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		switch scheme {
		case "http":
			port = "80"
		case "h2c":
			t.http2 = true
		case "https":
			return Target{}, fmt.Errorf("%.200q speaks TLS, and what is behind this proxy is a plain HTTP service: have it listen on loopback, as http://127.0.0.1:8080", s)
		default:
			return Target{}, fmt.Errorf("%.200q is not a target: HOST:PORT, http://HOST:PORT, h2c://HOST:PORT or unix:PATH", s)
		}
		rest = strings.TrimSuffix(after, "/")
	}
	host, port, err := splitPort(rest, port)
	if err != nil {
		return Target{}, fmt.Errorf("%.200q is not a target: %w", s, err)
	}
	t.address = net.JoinHostPort(host, port)
	t.host = t.address
	return t, nil
}

// splitPort splits HOST:PORT, where a port may be left out if there is one to assume.
func splitPort(s, assumed string) (host, port string, err error) {
	u, err := url.Parse("http://" + s)
	if err != nil || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(s, "?") || strings.HasSuffix(s, "#") {
		return "", "", errors.New("it has more, or less, than a host and a port: paths are passed on as they are")
	}
	host, port = u.Hostname(), u.Port()
	if port == "" {
		port = assumed
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", "", errors.New("it has no port from 1 to 65535")
	}
	if host == "" {
		return "", "", errors.New("it has no host")
	}
	return host, port, nil
}

// String is what ParseTarget read.
func (t Target) String() string { return t.text }
