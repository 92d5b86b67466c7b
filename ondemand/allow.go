// SPDX-License-Identifier: Apache-2.0

package ondemand

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/keyturn/keyturn/internal/names"
)

// An Allow says for which names certificates may be issued, and so is what keeps
// anyone who can connect from having a CA sign whatever comes to mind. It returns
// nil if one may be issued for the name, else why not.
//
// The name is in its normal form: a DNS name in lower-case A-labels without a
// trailing dot, or an IP address. It is the client's word, and nothing else is known
// of it. ctx is that of the handshake, within the Source's Timeout.
//
// An Allow is asked before each issuance and each look into the Cache, by any number
// of goroutines at once, but not where a valid certificate is at hand: what it no
// longer allows is served until the certificate's end and not renewed.
type Allow func(ctx context.Context, name string) error

// ErrNotAllowed means that the Source's Allow does not allow a name, or that what
// a client sent is not a host name.
var ErrNotAllowed = errors.New("no certificate is issued for this name")

// Names returns an Allow of these names alone. Each pattern is one of
//
//   - a DNS name, which may be international: "www.example.com";
//   - one with "*" for its first label, for any one label in its place, but not for
//     several, nor for none: "*.example.com";
//   - an IP address: "192.0.2.1";
//   - a range of IP addresses: "10.0.0.0/8".
//
// With a pattern that is none of these, everything is refused, and the error says
// which one it is; [ParseNames] says so at once.
func Names(patterns ...string) Allow {
	allow, err := ParseNames(patterns...)
	if err != nil {
		return func(context.Context, string) error { return err }
	}
	return allow
}

// ParseNames is Names for patterns that come from elsewhere, such as a configuration.
func ParseNames(patterns ...string) (Allow, error) {
	exact := make(map[string]bool)
	var ranges []netip.Prefix
	for _, p := range patterns {
		if strings.Contains(p, "/") {
			r, err := netip.ParsePrefix(p)
			if err != nil {
				return nil, fmt.Errorf("ondemand: reading the names that are allowed: %.100q is not a range of IP addresses, such as 10.0.0.0/8", p)
			}
			ranges = append(ranges, r.Masked())
			continue
		}
		// A pattern is no wildcard of a certificate: it may stand before one label, too.
		base, wildcard := strings.CutPrefix(p, "*.")
		name, err := names.Normalize(base)
		if err == nil && strings.Contains(name, "*") {
			err = errors.New("a wildcard can only be the first label, once")
		}
		if err == nil && wildcard && isAddr(name) {
			err = errors.New("there are no wildcards for IP addresses; give a range, such as 10.0.0.0/8")
		}
		if err != nil {
			return nil, fmt.Errorf("ondemand: reading the names that are allowed: %q: %w", shown(p), err)
		}
		if wildcard {
			name = "*." + name
		}
		exact[name] = true
	}
	return func(_ context.Context, name string) error {
		if exact[name] || inRange(ranges, name) {
			return nil
		}
		if _, above, ok := strings.Cut(name, "."); ok && exact["*."+above] {
			return nil
		}
		return errors.New("it is not among the names that are allowed")
	}, nil
}

func inRange(ranges []netip.Prefix, name string) bool {
	if len(ranges) == 0 {
		return false
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	for _, r := range ranges {
		if r.Contains(ip) {
			return true
		}
	}
	return false
}
