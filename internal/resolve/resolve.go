// SPDX-License-Identifier: Apache-2.0

// Package resolve asks name servers what public certificates need to know: TXT,
// CNAME and CAA records, where a zone begins, and which servers are
// authoritative for it. The operating system's own functions answer none of it,
// and cannot be pointed to other servers.
//
// [New] makes a [Resolver] of a list of recursive name servers, or of the
// system's. A name or a record that is not there is no error: it is an empty
// answer. An [Error] says that the answer is not known.
//
// Nothing is kept: each call asks anew. Answers are not validated (DNSSEC), which
// is the resolver's work; nothing here decides what a CA does not check itself.
package resolve

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Bounds of one lookup.
const (
	// queryTime is how long one server has to answer over one transport. Resolvers
	// give up on an upstream server after about two seconds.
	queryTime = 3 * time.Second
	// rounds is how often all servers are tried.
	rounds = 2
	// MaxAliases is how many CNAMEs in a row are followed. Resolvers follow 8 to 16.
	MaxAliases = 8
)

// A Resolver asks name servers. It is immutable: any number of goroutines may
// call it at once.
type Resolver struct {
	servers []string // HOST:PORT; none: the system's
	port    string   // of authoritative servers
}

// New returns a resolver that asks the servers, HOST:PORT, in turn. Without any
// it asks those of /etc/resolv.conf, read again for each lookup.
func New(servers []string) *Resolver {
	return &Resolver{servers: slices.Clone(servers), port: "53"}
}

// WithAuthoritativePort returns a resolver that expects authoritative servers at
// another port than 53, which a test cannot listen on.
func (r *Resolver) WithAuthoritativePort(port string) *Resolver {
	return &Resolver{servers: r.servers, port: port}
}

// TXT returns the TXT records of a name, the strings of each joined. Aliases are
// followed.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	return r.text(ctx, r.recursive, name)
}

// TXTAt returns the TXT records that one server, HOST:PORT, itself has for a name.
func (r *Resolver) TXTAt(ctx context.Context, server, name string) ([]string, error) {
	return r.text(ctx, direct(server), name)
}

func (r *Resolver) text(ctx context.Context, ask asker, name string) ([]string, error) {
	a, err := lookup(ctx, ask, name, dns.TypeTXT)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, rr := range a.records {
		if txt, ok := rr.(*dns.TXT); ok {
			texts = append(texts, strings.Join(txt.Txt, ""))
		}
	}
	return texts, nil
}

// Follow returns the name at the end of the CNAMEs that begin at name: name
// itself if it is no alias.
func (r *Resolver) Follow(ctx context.Context, name string) (string, error) {
	// The end is what has no CNAME: a question for CNAMEs is not followed by servers.
	at, seen := canonical(name), 0
	for {
		m, err := r.recursive(ctx, at, dns.TypeCNAME)
		if err != nil {
			return "", err
		}
		to, ok := alias(m, at)
		if !ok {
			return unqualified(at), nil
		}
		if seen++; seen > MaxAliases {
			return "", tooMany(name, dns.TypeCNAME)
		}
		at = to
	}
}

// An asker sends one question and returns an answer that fits it.
type asker func(ctx context.Context, name string, qtype uint16) (*dns.Msg, error)

// An answer is what a name has of one type.
type answer struct {
	owner   string // the end of the aliases; with a trailing dot
	records []dns.RR
	message *dns.Msg // the last one
}

// lookup asks for a name's records of a type and follows aliases, also where the
// server itself does not.
func lookup(ctx context.Context, ask asker, name string, qtype uint16) (*answer, error) {
	a := &answer{owner: canonical(name)}
	for seen := 0; ; {
		m, err := ask(ctx, a.owner, qtype)
		if err != nil {
			return nil, err
		}
		a.message = m
		before := seen
		for seen <= MaxAliases {
			to, ok := alias(m, a.owner)
			if !ok {
				break
			}
			a.owner = to
			seen++
		}
		if seen > MaxAliases {
			return nil, tooMany(name, qtype)
		}
		a.records = owned(m, a.owner, qtype)
		if len(a.records) > 0 || seen == before || m.Rcode == dns.RcodeNameError {
			return a, nil
		}
	}
}

// alias returns what the message says that a name is an alias of.
func alias(m *dns.Msg, name string) (string, bool) {
	for _, rr := range m.Answer {
		if c, ok := rr.(*dns.CNAME); ok && canonical(c.Hdr.Name) == name {
			return canonical(c.Target), true
		}
	}
	return "", false
}

// owned returns the records of a type that the answer has for a name, and not
// what else a server may have put there.
func owned(m *dns.Msg, name string, qtype uint16) []dns.RR {
	var found []dns.RR
	for _, rr := range m.Answer {
		if h := rr.Header(); h.Rrtype == qtype && h.Class == dns.ClassINET && canonical(h.Name) == name {
			found = append(found, rr)
		}
	}
	return found
}

var errAliases = fmt.Errorf("more than %d CNAMEs in a row, or a loop of them: make the name an alias of one that is none", MaxAliases)

func tooMany(name string, qtype uint16) error {
	return &Error{Name: unqualified(canonical(name)), Type: dns.TypeToString[qtype], Err: errAliases}
}

// canonical is lower case with a trailing dot.
func canonical(name string) string { return dns.CanonicalName(name) }

// unqualified is how names are written everywhere else: without a trailing dot.
func unqualified(name string) string { return strings.TrimSuffix(name, ".") }

// An Error says that a question was not answered, by anybody who was asked.
type Error struct {
	Name, Type string // what was asked: "example.com", "TXT"
	Err        error  // each server's failure
}

func (e *Error) Error() string {
	return fmt.Sprintf("asking for the %s records of %s: %v", e.Type, e.Name, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Timeout reports whether no server answered in time.
func (e *Error) Timeout() bool {
	var t interface{ Timeout() bool }
	return errors.As(e.Err, &t) && t.Timeout()
}
