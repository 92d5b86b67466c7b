// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	acmez "github.com/mholt/acmez/v3/acme"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/solver"
)

// Types of identifiers.
const (
	typeDNS = "dns" // RFC 8555 section 7.1.4
	typeIP  = "ip"  // RFC 8738
)

// names are what an order is for: each once, sorted, DNS names in lower case, IP
// addresses as netip.Addr prints them.
type names []acmez.Identifier

// namesOf returns the names of a request, or why no CA signs it.
func namesOf(r issuer.OrderRequest) (names, error) {
	csr := r.CSR
	switch {
	case csr == nil:
		return nil, errors.New("there is no certificate request")
	case r.Lifetime < 0:
		return nil, fmt.Errorf("a lifetime of %s", r.Lifetime)
	case len(csr.EmailAddresses)+len(csr.URIs) > 0:
		return nil, errors.New("the request has names that are neither DNS names nor IP addresses")
	case r.Challenge != "" && !slices.Contains(solver.Types(), r.Challenge):
		return nil, fmt.Errorf("%q is no challenge; known are %s", shown(r.Challenge), strings.Join(solver.Types(), ", "))
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the request is not signed by its key: %w", err)
	}
	var all names
	for _, name := range csr.DNSNames {
		all = append(all, acmez.Identifier{Type: typeDNS, Value: strings.ToLower(name)})
	}
	for _, ip := range csr.IPAddresses {
		address, ok := netip.AddrFromSlice(ip)
		if !ok {
			return nil, errors.New("an IP address of the request is none")
		}
		all = append(all, acmez.Identifier{Type: typeIP, Value: address.Unmap().String()})
	}
	if len(all) == 0 {
		return nil, errors.New("the request has no names")
	}
	all = all.normal()
	if cn := csr.Subject.CommonName; cn != "" && !all.has(cn) {
		return nil, fmt.Errorf("the request's common name %q is not one of its names", shown(cn))
	}
	return all, nil
}

func (n names) normal() names {
	n = slices.Clone(n)
	slices.SortFunc(n, func(a, b acmez.Identifier) int {
		return strings.Compare(a.Type+" "+a.Value, b.Type+" "+b.Value)
	})
	return slices.Compact(n)
}

func (n names) has(name string) bool {
	return slices.ContainsFunc(n, func(id acmez.Identifier) bool { return strings.EqualFold(id.Value, name) })
}

// equal says whether an order is for the same names.
func (n names) equal(of []acmez.Identifier) bool {
	others := make(names, len(of))
	for i, id := range of {
		others[i] = normalID(id)
	}
	return slices.Equal(n, others.normal())
}

// identifiers are what the order asks for.
func (n names) identifiers() []acmez.Identifier { return slices.Clone(n) }

// normalID is an identifier of the CA's in this package's form.
func normalID(id acmez.Identifier) acmez.Identifier {
	if address, err := netip.ParseAddr(id.Value); err == nil && id.Type == typeIP {
		id.Value = address.Unmap().String()
	}
	id.Value = strings.ToLower(id.Value)
	return id
}

// challengeFor is the type by which control of a name is proven. What the issuer's
// default cannot prove is proven by what can: a wildcard by dns-01 (RFC 8555 section
// 7.1.3), an address by http-01 (RFC 8738 section 7). An order's own choice counts
// for all of its names: what the CA does not offer is an error.
func (j *job) challengeFor(id acmez.Identifier, wildcard bool) string {
	kind := j.ca.config.Challenge
	switch {
	case j.request.Challenge != "":
		return j.request.Challenge
	case wildcard:
		return solver.DNS01
	case id.Type == typeIP && kind == solver.DNS01:
		return solver.HTTP01
	}
	return kind
}
