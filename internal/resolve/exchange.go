// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// udpSize is the largest answer that is taken over UDP: what is not fragmented on
// any usual path (DNS flag day 2020).
const udpSize = 1232

// system is where the system's name servers are listed.
const system = "/etc/resolv.conf"

// recursive asks the resolver's servers in turn until one knows.
func (r *Resolver) recursive(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
	servers, err := r.list()
	if err != nil {
		return nil, failed(name, qtype, err)
	}
	q := question(name, qtype, true)
	var errs []error
	for range rounds {
		errs = errs[:0]
		for _, server := range servers {
			m, err := exchange(ctx, server, q)
			if err == nil {
				return m, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", server, err))
			if ctx.Err() != nil {
				return nil, failed(name, qtype, errors.Join(errs...))
			}
		}
	}
	return nil, failed(name, qtype, fmt.Errorf("no name server knows; is another resolver needed? %w", errors.Join(errs...)))
}

// direct asks one server for what it has itself, once.
func direct(server string) asker {
	return func(ctx context.Context, name string, qtype uint16) (*dns.Msg, error) {
		m, err := exchange(ctx, server, question(name, qtype, false))
		if err != nil {
			return nil, failed(name, qtype, err)
		}
		return m, nil
	}
}

func failed(name string, qtype uint16, err error) error {
	return &Error{Name: unqualified(name), Type: dns.TypeToString[qtype], Err: err}
}

// list returns whom to ask.
func (r *Resolver) list() ([]string, error) {
	if len(r.servers) > 0 {
		return r.servers, nil
	}
	c, err := dns.ClientConfigFromFile(system)
	if err != nil {
		return nil, fmt.Errorf("reading which name servers the system uses: %w; name them in the configuration as resolvers", err)
	}
	if len(c.Servers) == 0 {
		return nil, fmt.Errorf("%s names no name server: name them in the configuration as resolvers", system)
	}
	servers := make([]string, len(c.Servers))
	for i, host := range c.Servers {
		servers[i] = net.JoinHostPort(host, c.Port)
	}
	return servers, nil
}

func question(name string, qtype uint16, recursion bool) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(canonical(name), qtype)
	q.RecursionDesired = recursion
	q.SetEdns0(udpSize, false)
	return q
}

// exchange asks one server, over UDP and, where the answer does not fit, TCP. The
// answer is to this question and says what there is, which may be nothing.
func exchange(ctx context.Context, server string, q *dns.Msg) (*dns.Msg, error) {
	q = q.Copy()
	q.Id = dns.Id()
	m, err := over(ctx, "udp", server, q)
	if err == nil && m.Truncated {
		m, err = over(ctx, "tcp", server, q)
	}
	if err != nil {
		return nil, err
	}
	switch {
	case m.Rcode == dns.RcodeSuccess && m.Truncated:
		return nil, errors.New("the answer is cut off, even over TCP")
	case m.Rcode == dns.RcodeSuccess, m.Rcode == dns.RcodeNameError:
		return m, nil
	}
	return nil, fmt.Errorf("it answers %s", rcode(m.Rcode))
}

func over(ctx context.Context, network, server string, q *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	client := &dns.Client{Net: network, Timeout: queryTime}
	conn, err := client.DialContext(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the read
	defer stop()
	m, _, err := client.ExchangeWithConnContext(ctx, q, conn)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
		}
		return nil, err
	}
	if !fits(q, m) {
		return nil, errors.New("its answer is not to the question")
	}
	return m, nil
}

// fits reports whether m answers q (RFC 5452 section 9.1). The id and the
// address have been looked at: the socket takes no other's packets.
func fits(q, m *dns.Msg) bool {
	if !m.Response || m.Opcode != dns.OpcodeQuery || len(m.Question) != 1 {
		return false
	}
	asked, got := q.Question[0], m.Question[0]
	return got.Qtype == asked.Qtype && got.Qclass == asked.Qclass && strings.EqualFold(got.Name, asked.Name)
}

func rcode(code int) string {
	if s, ok := dns.RcodeToString[code]; ok {
		return s
	}
	return fmt.Sprintf("the unknown code %d", code)
}
