// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/internal/names"
)

// allNames is the zone of all names, addresses included.
const allNames = "."

// zones reads which solvers answer for the names in a zone.
func (m *mapping) zones(solvers map[string]Solver) map[string][]string {
	var all map[string][]string
	for _, zone := range m.keys {
		if problem := badZone(zone); problem != "" {
			m.wrong(zone, "%s", problem)
			continue
		}
		answer, ok := texts(m, zone, solverName(solvers))
		if !ok {
			continue
		}
		if len(answer) == 0 {
			m.wrong(zone, "no solver answers for the zone: name one, or leave the zone out")
			continue
		}
		if all == nil {
			all = make(map[string][]string)
		}
		all[zone] = answer
	}
	return all
}

// badZone says what is wrong with the name of a zone: "" if nothing is.
func badZone(zone string) string {
	if zone == allNames {
		return ""
	}
	normal, err := names.Normalize(zone)
	_, address := netip.ParseAddr(normal)
	switch {
	case err != nil:
		return err.Error() + "; a zone is a DNS name, or . for all names"
	case address == nil:
		return "a zone is a DNS name, and this is an address; . stands for all names and addresses"
	case strings.HasPrefix(normal, "*."):
		return fmt.Sprintf("a zone stands for itself and for all names in it: write %s", normal[2:])
	case normal != zone:
		return fmt.Sprintf("write the zone as %s", normal)
	}
	return ""
}

// solverName reads the name of a solver that exists.
func solverName(solvers map[string]Solver) func(string) (string, error) {
	return func(s string) (string, error) {
		if _, ok := solvers[s]; !ok && s != BusSolver {
			all := append(slices.Sorted(maps.Keys(solvers)), BusSolver)
			return "", fmt.Errorf("there is no solver %.70q; the solvers are %s", s, strings.Join(all, ", "))
		}
		return s, nil
	}
}

// dnsPort is where name servers are asked that are named without a port.
const dnsPort = "53"

// resolver reads a name server as HOST:PORT or HOST and returns HOST:PORT.
func resolver(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), dnsPort
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("%.80q has no port from 1 to 65535", s)
	}
	normal, err := names.Normalize(host)
	if err != nil || strings.HasPrefix(normal, "*.") {
		return "", fmt.Errorf("%.80q is not a name server: write HOST:PORT, or HOST for port %s", s, dnsPort)
	}
	return net.JoinHostPort(normal, port), nil
}
