// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"context"

	"github.com/miekg/dns"
)

// A CAA is one CAA record (RFC 8659 section 4).
type CAA struct {
	// Critical says that a CA which does not know the tag must not issue.
	Critical bool
	// Tag is what the record is about, as it was written: compare without case.
	Tag string
	// Value is the tag's.
	Value string
}

// CAA returns the CAA records that count for a DNS name, which is without "*.":
// its own or, if it has none, those of the nearest name above it that has some
// (RFC 8659 section 3). At is the name that they are found under; "" if there are
// none up to the top-level domain, and any CA may issue. An error says that it is
// not known, which forbids a CA to issue.
func (r *Resolver) CAA(ctx context.Context, name string) (records []CAA, at string, err error) {
	for at, more := canonical(name), true; more; at, more = parent(at) {
		a, err := lookup(ctx, r.recursive, at, dns.TypeCAA)
		if err != nil {
			return nil, "", err
		}
		for _, rr := range a.records {
			if c, ok := rr.(*dns.CAA); ok {
				records = append(records, CAA{c.Flag&0x80 != 0, c.Tag, c.Value})
			}
		}
		if len(records) > 0 {
			return records, unqualified(a.owner), nil
		}
	}
	return nil, "", nil
}
