// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"strings"
	"time"

	"github.com/keyturn/keyturn/internal/plural"
)

// String prints the report for people: who answered and how, the chain indented from
// the leaf to the root, the findings with their remedies, and the sum of it. It ends in
// a newline. What it looks like can change; programs use the fields, or JSON.
func (r *Report) String() string {
	var b strings.Builder
	r.writeHead(&b)
	if len(r.Chain) > 0 {
		b.WriteString("\nChain\n")
	}
	for i, l := range r.Chain {
		l.write(&b, i, r.At)
	}
	if len(r.Findings) > 0 {
		b.WriteString("\n")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-8s %s: %s\n", f.Severity, f.Cause, f.Detail)
		if f.Remedy != "" {
			fmt.Fprintf(&b, "%-8s %s\n", "", f.Remedy)
		}
	}
	b.WriteString("\n" + r.sum() + "\n")
	return b.String()
}

func (r *Report) writeHead(b *strings.Builder) {
	fmt.Fprintf(b, "%s", r.Address)
	if r.RemoteAddress != "" && r.RemoteAddress != r.Address {
		fmt.Fprintf(b, " at %s", r.RemoteAddress)
	}
	if r.ServerName != "" {
		fmt.Fprintf(b, ", asked for %s", r.ServerName)
	}
	b.WriteString("\n")
	if r.Version != "" {
		fmt.Fprintf(b, "%s, %s", r.Version, r.CipherSuite)
		if r.ALPN != "" {
			fmt.Fprintf(b, ", %s", r.ALPN)
		}
		b.WriteString("\n")
	}
	if !r.ClientCertificateRequested {
		return
	}
	b.WriteString("asks for a client certificate")
	if n := len(r.AcceptableCAs); n > 0 {
		const most = 3
		fmt.Fprintf(b, " of %s", strings.Join(r.AcceptableCAs[:min(n, most)], " or "))
		if more := n + r.AcceptableCAsLeftOut - most; more > 0 {
			fmt.Fprintf(b, " or %d more", more)
		}
	}
	if r.ClientCertificateSent {
		b.WriteString("; one was shown\n")
	} else {
		b.WriteString("; none was shown\n")
	}
}

func (l *Link) write(b *strings.Builder, depth int, now time.Time) {
	indent := strings.Repeat("  ", min(depth, maxLinks)+1)
	where := ""
	switch {
	case l.Unused:
		where = ", sent and not needed"
	case l.Anchor && l.Position == 0:
		where = ", in the pool, not sent"
	case l.Anchor:
		where = ", in the pool"
	}
	fmt.Fprintf(b, "%s%s\n", indent, strings.TrimSuffix(l.Role+" "+l.Subject, " ")+where)
	if len(l.Names) > 0 {
		const most = 5
		names := strings.Join(l.Names[:min(len(l.Names), most)], ", ")
		if more := len(l.Names) + l.NamesLeftOut - most; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		fmt.Fprintf(b, "%s  for %s\n", indent, names)
	}
	key := l.KeyType
	if l.KeySize > 0 {
		key += fmt.Sprintf(" %d", l.KeySize)
	}
	if len(l.Usage) > 0 {
		key += ", " + strings.Join(l.Usage, " ")
	}
	fmt.Fprintf(b, "%s  %s to %s, %s; %s\n", indent, stamp(l.NotBefore), stamp(l.NotAfter), remaining(l, now), key)
	fmt.Fprintf(b, "%s  serial %s, SHA-256 %.16s…", indent, l.Serial, l.SHA256)
	if l.Issuer != "" && l.Issuer != l.Subject {
		fmt.Fprintf(b, ", signed by %s", l.Issuer)
	}
	b.WriteString("\n")
}

func remaining(l *Link, now time.Time) string {
	switch {
	case now.Before(l.NotBefore):
		return "not yet valid"
	case now.After(l.NotAfter):
		return "expired"
	}
	return span(l.NotAfter.Sub(now)) + " left"
}

// sum is the last line.
func (r *Report) sum() string {
	count := map[Severity]int{}
	for _, f := range r.Findings {
		count[f.Severity]++
	}
	warnings := ""
	if n := count[Warning]; n > 0 {
		warnings = ", " + plural.Of(n, "warning")
	}
	if n := count[Error]; n > 0 {
		return plural.Of(n, "error") + warnings
	}
	left := ""
	if r.Ends != nil {
		left = ": valid for " + span(r.Ends.Sub(r.At)) + ", until " + stamp(*r.Ends)
	}
	return "no fault found" + warnings + left
}
