// SPDX-License-Identifier: Apache-2.0

package acmetest

import (
	"context"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/letsencrypt/challtestsrv"
	"github.com/miekg/dns"

	"github.com/keyturn/keyturn/solver"
)

// DNS is a name server that resolves every name: to what it was told of it, else
// to 127.0.0.1. It knows A, AAAA, TXT, CNAME and CAA records and follows a CNAME
// once. All methods may be called at any time by any number of goroutines.
type DNS struct {
	addr    string
	records *challtestsrv.ChallSrv
	mu      sync.Mutex // a TXT record is taken away by setting the others anew
}

// muxMu guards dns.DefaultServeMux, which challtestsrv enters itself in.
var muxMu sync.Mutex

// newRecords returns a challenge test server and its handler. Each gets a mux of
// its own: in the default one the newest would answer for all.
func newRecords() (*challtestsrv.ChallSrv, dns.Handler, error) {
	muxMu.Lock()
	defer muxMu.Unlock()
	shared := dns.DefaultServeMux
	defer func() { dns.DefaultServeMux = shared }()
	own := dns.NewServeMux()
	dns.DefaultServeMux = own
	s, err := challtestsrv.New(challtestsrv.Config{
		DNSAddrs: []string{"127.0.0.1:0"}, // never bound: StartDNS listens
		Log:      log.New(io.Discard, "", 0),
	})
	return s, own, err
}

// StartDNS starts a name server on a free loopback port, over UDP and TCP.
func StartDNS(tb testing.TB) *DNS {
	tb.Helper()
	records, handler, err := newRecords()
	if err != nil {
		tb.Fatal(err)
	}
	records.SetDefaultDNSIPv6("") // not every machine has an IPv6 loopback
	udp, tcp, err := listen()
	if err != nil {
		tb.Fatal(err)
	}
	serve(tb, &dns.Server{PacketConn: udp, Handler: handler})
	serve(tb, &dns.Server{Listener: tcp, Handler: handler})
	return &DNS{addr: tcp.Addr().String(), records: records}
}

// listen takes a port that is free for both UDP and TCP.
func listen() (udp net.PacketConn, tcp net.Listener, err error) {
	for range 100 {
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			return udp, tcp, nil
		}
		_ = tcp.Close()
	}
	return nil, nil, err
}

func serve(tb testing.TB, s *dns.Server) {
	started, ended := make(chan struct{}), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(started) }
	go func() { ended <- s.ActivateAndServe() }()
	select {
	case <-started:
	case err := <-ended:
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = s.Shutdown()
		<-ended
	})
}

// Addr returns the server's HOST:PORT.
func (d *DNS) Addr() string { return d.addr }

// A sets the IPv4 and IPv6 addresses of a host; none takes them away, and the
// host is 127.0.0.1 again.
func (d *DNS) A(host string, ips ...string) {
	d.records.DeleteDNSARecord(host)
	d.records.DeleteDNSAAAARecord(host)
	for _, ip := range ips {
		if parsed := net.ParseIP(ip); parsed != nil && parsed.To4() == nil {
			d.records.AddDNSAAAARecord(host, []string{ip})
			continue
		}
		d.records.AddDNSARecord(host, []string{ip})
	}
}

// TXT sets the TXT records of a host; none takes them away.
func (d *DNS) TXT(host string, values ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setTXT(host, values)
}

func (d *DNS) setTXT(host string, values []string) {
	d.records.DeleteDNSTXTRecord(host)
	for _, v := range values {
		d.records.AddDNSTXTRecord(host, v)
	}
}

// TXTs returns the TXT records of a host.
func (d *DNS) TXTs(host string) []string { return slices.Clone(d.records.GetDNSTXTRecords(host)) }

// CNAME makes a host an alias; target "" ends that.
func (d *DNS) CNAME(host, target string) {
	if d.records.DeleteDNSCNAMERecord(host); target != "" {
		d.records.AddDNSCNAMERecord(host, target)
	}
}

// CAA adds a CAA record to those of a host.
func (d *DNS) CAA(host, tag, value string) {
	d.records.AddDNSCAARecord(host, []challtestsrv.CAAPolicy{{Tag: tag, Value: value}})
}

// ServFail lets all questions for a host fail.
func (d *DNS) ServFail(host string) { d.records.AddDNSServFailRecord(host) }

// Solve answers a dns-01 challenge: DNS is a [solver.Solver].
func (d *DNS) Solve(_ context.Context, c solver.Challenge) (done func(context.Context) error, err error) {
	host, value := "_acme-challenge."+c.Name, c.DNSValue()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records.AddDNSTXTRecord(host, value)
	return func(context.Context) error {
		d.mu.Lock()
		defer d.mu.Unlock()
		left := d.TXTs(host)
		if i := slices.Index(left, value); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
		d.setTXT(host, left)
		return nil
	}, nil
}
