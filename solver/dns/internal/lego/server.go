// SPDX-License-Identifier: Apache-2.0

package lego

import (
	"crypto/rand"
	"log/slog"
	"net"
	"strings"
	"sync"

	"github.com/go-acme/lego/v5/challenge/dns01"
	"github.com/go-acme/lego/v5/log"
	mdns "github.com/miekg/dns"

	"github.com/keyturn/keyturn/solver/dns"
)

// invented is where the names are that lego is told: none exists (RFC 6761).
const invented = ".keyturn.invalid."

// A server is lego's name server. It answers over TCP alone, so that nobody else
// can answer in its place.
type server struct {
	mu      sync.Mutex
	aliases map[string]string // of invented names, to where a record stands
	zones   map[string]int    // how many records are in a zone
}

// process is the one server of the process: lego has one client for all.
var process struct {
	sync.Mutex
	server *server // nil before the first call; guarded by the mutex
}

// start returns the process's server. It stays, as lego's client does.
func start() (*server, error) {
	process.Lock()
	defer process.Unlock()
	if process.server != nil {
		return process.server, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &server{aliases: make(map[string]string), zones: make(map[string]int)}
	// Its log speaks of the invented names; what matters is in its errors.
	log.SetDefault(slog.New(slog.DiscardHandler))
	go func() { _ = (&mdns.Server{Listener: l, Handler: s}).ActivateAndServe() }() // ends with the process
	dns01.SetDefaultClient(dns01.NewClient(&dns01.Options{RecursiveNameservers: []string{l.Addr().String()}, TCPOnly: true}))
	process.server = s
	return s, nil
}

// learn makes the server know a record, until forget is called, under a domain
// name that it returns.
func (s *server) learn(r dns.Record) (domain string, forget func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	label := strings.ToLower(rand.Text())
	alias, zone := "_acme-challenge."+label+invented, mdns.Fqdn(r.Zone)
	s.aliases[alias] = mdns.Fqdn(r.Name)
	s.zones[zone]++
	return label + strings.TrimSuffix(invented, "."), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.aliases, alias)
		if s.zones[zone]--; s.zones[zone] == 0 {
			delete(s.zones, zone)
		}
	}
}

// ServeDNS answers a question for a CNAME or an SOA record; all others are empty.
func (s *server) ServeDNS(w mdns.ResponseWriter, q *mdns.Msg) {
	m := new(mdns.Msg).SetReply(q)
	if len(q.Question) == 1 {
		m.Answer = s.answer(q.Question[0])
	}
	_ = w.WriteMsg(m) // who has gone needs no answer
}

func (s *server) answer(q mdns.Question) []mdns.RR {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := mdns.CanonicalName(q.Name)
	h := mdns.RR_Header{Name: name, Rrtype: q.Qtype, Class: mdns.ClassINET}
	target, known := s.aliases[name]
	switch {
	case q.Qtype == mdns.TypeCNAME && known:
		return []mdns.RR{&mdns.CNAME{Hdr: h, Target: target}}
	case q.Qtype == mdns.TypeSOA && s.zones[name] > 0:
		// Without a refresh time lego keeps it for no time.
		return []mdns.RR{&mdns.SOA{Hdr: h, Ns: name, Mbox: name}}
	}
	return nil
}
