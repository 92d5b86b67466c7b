// SPDX-License-Identifier: Apache-2.0

package issuer

import (
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/internal/printable"
)

// A Problem is an error in the CA's own words: a problem document (RFC 9457,
// formerly RFC 7807) with the members that RFC 8555 section 6.7 adds.
type Problem struct {
	// Type is a URI, such as "urn:ietf:params:acme:error:caa".
	Type, Title, Detail, Instance string
	// Status is that of HTTP; 0 if there was none.
	Status int
	// Name is the identifier that it is about; "" if it is about all.
	Name string
	// Parts are the problems of single names.
	Parts []Problem
}

// Kind is the last part of an ACME type, "caa", or the whole of another.
func (p *Problem) Kind() string {
	return strings.TrimPrefix(p.Type, "urn:ietf:params:acme:error:")
}

// Error is the CA's explanation, one line, with what it says of single names.
// What a CA sent can neither make lines of its own nor be endless.
func (p *Problem) Error() string {
	var b strings.Builder
	p.write(&b)
	const most = 10
	for i := range p.Parts[:min(most, len(p.Parts))] {
		b.WriteString("; ")
		p.Parts[i].write(&b)
	}
	if n := len(p.Parts) - most; n > 0 {
		fmt.Fprintf(&b, "; and %d more", n)
	}
	return b.String()
}

func (p *Problem) write(b *strings.Builder) {
	if p.Name != "" {
		b.WriteString(printable.Start(p.Name, maxName) + ": ")
	}
	said := p.Detail
	if said == "" {
		said = p.Title
	}
	kind := p.Kind()
	if kind == "" {
		kind = fmt.Sprintf("HTTP status %d", p.Status)
	}
	fmt.Fprintf(b, "%s (%s)", printable.Start(said, maxDetail), printable.Start(kind, maxName))
	if p.Instance != "" {
		b.WriteString(", see " + printable.Start(p.Instance, maxName))
	}
}

// maxDetail bounds what one explanation adds to an error, in bytes.
const maxDetail = 1000
