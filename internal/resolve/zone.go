// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"context"
	"errors"
	"net"

	"github.com/miekg/dns"
)

// maxServers bounds the authoritative servers, and the addresses of each, that
// are looked at. A root server's zone has 13.
const maxServers = 16

var errNoZone = errors.New("no zone is known that it is in: is the domain registered, and does the resolver see it?")

// Zone returns the apex of the zone that a name is in, without a trailing dot:
// the name itself or one above it. The name need not exist.
func (r *Resolver) Zone(ctx context.Context, name string) (string, error) {
	name = canonical(name)
	for at, more := name, true; more; at, more = parent(at) {
		m, err := r.recursive(ctx, at, dns.TypeSOA)
		if err != nil {
			return "", err
		}
		if apex, ok := authority(m, at); ok {
			return unqualified(apex), nil
		}
	}
	return "", failed(name, dns.TypeSOA, errNoZone)
}

// authority returns the apex that an answer about a name tells: of the SOA record
// that was asked for, or of the one that comes with an empty answer (RFC 2308
// section 3).
func authority(m *dns.Msg, name string) (string, bool) {
	if _, ok := alias(m, name); ok {
		return "", false // the SOA record is that of another name
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		for _, rr := range section {
			soa, ok := rr.(*dns.SOA)
			if !ok {
				continue
			}
			// The root's is that of a top-level domain that does not exist.
			if apex := canonical(soa.Hdr.Name); apex != "." && dns.IsSubDomain(apex, name) {
				return apex, true
			}
		}
	}
	return "", false
}

// parent returns the name above; false if that is the root.
func parent(name string) (string, bool) {
	at, end := dns.NextLabel(name, 0)
	if end {
		return ".", false
	}
	return name[at:], true
}

// A NameServer is one that a zone names as authoritative.
type NameServer struct {
	Name string // without a trailing dot
	// Addrs are its addresses, HOST:PORT; none if it has none or they are not known.
	Addrs []string
}

// NameServers returns a zone's authoritative servers, as the zone itself names
// them: those that a CA's resolver asks. A hidden primary is not among them.
func (r *Resolver) NameServers(ctx context.Context, zone string) ([]NameServer, error) {
	a, err := lookup(ctx, r.recursive, zone, dns.TypeNS)
	if err != nil {
		return nil, err
	}
	var servers []NameServer
	for _, rr := range a.records {
		if ns, ok := rr.(*dns.NS); ok && len(servers) < maxServers {
			name := canonical(ns.Ns)
			servers = append(servers, NameServer{unqualified(name), r.addresses(ctx, name)})
		}
	}
	return servers, ctx.Err()
}

// addresses returns what is known of a host's addresses. A server without any is
// one that does not answer.
func (r *Resolver) addresses(ctx context.Context, host string) []string {
	var addrs []string
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a, err := lookup(ctx, r.recursive, host, qtype)
		if err != nil {
			continue
		}
		for _, rr := range a.records {
			if ip := address(rr); ip != nil && len(addrs) < maxServers {
				addrs = append(addrs, net.JoinHostPort(ip.String(), r.port))
			}
		}
	}
	return addrs
}

func address(rr dns.RR) net.IP {
	switch rr := rr.(type) {
	case *dns.A:
		return rr.A
	case *dns.AAAA:
		return rr.AAAA
	}
	return nil
}
