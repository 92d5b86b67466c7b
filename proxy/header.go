// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// The headers of RFC 9440.
const (
	clientCert      = "Client-Cert"
	clientCertChain = "Client-Cert-Chain"
)

// reserved are the names, in lower case, under which a client sends nothing, beside the
// identity's and all that start with forwardedPrefix.
var reserved = [...]string{"forwarded", "x-real-ip", "client-cert", "client-cert-chain"}

const forwardedPrefix = "x-forwarded-"

// checkIdentityHeader refuses names that have another meaning.
func checkIdentityHeader(name string) error {
	lower := strings.ToLower(name)
	for _, c := range []byte(lower) {
		if !alphanumeric(c) && c != '-' {
			return fmt.Errorf("%.80q is not a name for a header: letters, digits and hyphens", name)
		}
	}
	if !strings.HasPrefix(lower, "x-") || strings.HasPrefix(lower, forwardedPrefix) || lower == "x-real-ip" {
		return fmt.Errorf("%.80q is not a name for the identity's header: one is needed that starts with X-, and not X-Forwarded-", name)
	}
	return nil
}

// dropReserved takes away what only the proxy may say.
func dropReserved(h http.Header, identity string) {
	for name := range h {
		if isReserved(name, identity) {
			delete(h, name)
		}
	}
}

// isReserved reports whether a service could take a header for one that the proxy sets.
// CGI, and what goes by its rules, makes one variable of X-Client-Identity and
// X_client.identity.
func isReserved(name, identity string) bool {
	if len(name) >= len(forwardedPrefix) && alike(name[:len(forwardedPrefix)], forwardedPrefix) {
		return true
	}
	for _, r := range reserved {
		if alike(name, r) {
			return true
		}
	}
	return alike(name, identity)
}

// alike compares without regard to letter case and to which characters stand between
// letters and digits.
func alike(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		x, y := a[i], b[i]
		if lower(x) != lower(y) && (alphanumeric(lower(x)) || alphanumeric(lower(y))) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// setForwarded says for whom a request is. What a proxy of trusted has said stays.
func setForwarded(in, out *http.Request, trusted []netip.Prefix) {
	client := in.RemoteAddr
	peer, err := netip.ParseAddrPort(client)
	if err == nil {
		client = peer.Addr().Unmap().WithZone("").String()
	}
	host, proto := in.Host, "https"
	if err == nil && contains(trusted, peer.Addr()) {
		if before := strings.Join(in.Header["X-Forwarded-For"], ", "); before != "" {
			client = before + ", " + client
		}
		if v := in.Header.Get("X-Forwarded-Host"); v != "" {
			host = v
		}
		if v := in.Header.Get("X-Forwarded-Proto"); v != "" {
			proto = v
		}
	}
	out.Header["X-Forwarded-For"] = []string{client}
	out.Header["X-Forwarded-Host"] = []string{host}
	out.Header["X-Forwarded-Proto"] = []string{proto}
}

func contains(ranges []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, r := range ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}
