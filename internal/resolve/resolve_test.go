// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/keyturn/keyturn/internal/acmetest"
)

func TestChallengeServer(t *testing.T) {
	s := acmetest.StartDNS(t)
	r := New([]string{s.Addr()})
	s.TXT("_acme-challenge.a.test", "one", "two", strings.Repeat("x", 300))
	s.CNAME("alias.test", "_acme-challenge.a.test")
	s.CNAME("second.test", "alias.test")
	s.CAA("a.test", "issue", "ca.example")

	for _, name := range []string{"_acme-challenge.a.test", "alias.test", "second.test", "_ACME-challenge.A.test."} {
		got, err := r.TXT(t.Context(), name)
		if want := []string{"one", "two", strings.Repeat("x", 300)}; err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := r.Follow(t.Context(), "second.test"); err != nil || got != "_acme-challenge.a.test" {
		t.Errorf("the end of second.test is %q, %v", got, err)
	}
	if got, err := r.Follow(t.Context(), "a.test"); err != nil || got != "a.test" {
		t.Errorf("the end of a.test is %q, %v", got, err)
	}
	got, at, err := r.CAA(t.Context(), "x.y.a.test")
	if err != nil || at != "a.test" || len(got) != 1 || got[0] != (CAA{Tag: "issue", Value: "ca.example"}) {
		t.Errorf("CAA: %v at %q, %v", got, at, err)
	}
	if got, at, err := r.CAA(t.Context(), "b.test"); err != nil || at != "" || got != nil {
		t.Errorf("CAA of b.test: %v at %q, %v", got, at, err)
	}
	s.ServFail("a.test")
	var failed *Error
	if _, _, err := r.CAA(t.Context(), "x.y.a.test"); !errors.As(err, &failed) || failed.Timeout() || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("CAA of a name that fails: %v", err)
	}
}

// serve answers with what the function makes of a question; nil is no answer.
func serve(t testing.TB, answer func(q *dns.Msg) []byte) string {
	t.Helper()
	udp, tcp := listen(t)
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if b := answer(q); b != nil {
			_, _ = w.Write(b) // the test sees it at the other end
		}
	})
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: h}, {Listener: tcp, Handler: h}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { defer close(ended); _ = s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-ended })
	}
	return udp.LocalAddr().String()
}

// listen takes a port that is free for both UDP and TCP.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 100 {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		_ = udp.Close()
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// reply packs an answer with records in the form of a zone file.
func reply(q *dns.Msg, code int, answer ...string) []byte {
	m := new(dns.Msg).SetRcode(q, code)
	for _, text := range answer {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return pack(m)
}

func pack(m *dns.Msg) []byte {
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func TestHostileAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(q *dns.Msg) []byte
		want   string
	}{
		"other question": {func(q *dns.Msg) []byte {
			q = q.Copy()
			q.Question[0].Name = "other.test."
			return reply(q, dns.RcodeSuccess, "a.test. 1 IN TXT evil")
		}, "not to the question"},
		"no question": {func(q *dns.Msg) []byte {
			m := new(dns.Msg).SetReply(q)
			m.Question = nil
			return pack(m)
		}, "not to the question"},
		"a question": {func(q *dns.Msg) []byte { return pack(q) }, "not to the question"},
		"malformed": {func(q *dns.Msg) []byte {
			b := reply(q, dns.RcodeSuccess, "a.test. 1 IN TXT x")
			return b[:len(b)-4]
		}, "overflow"},
		"cut off": {func(q *dns.Msg) []byte {
			m := new(dns.Msg).SetReply(q)
			m.Truncated = true
			return pack(m)
		}, "cut off"},
		"refused": {func(q *dns.Msg) []byte { return reply(q, dns.RcodeRefused) }, "REFUSED"},
		"loop": {func(q *dns.Msg) []byte {
			return reply(q, dns.RcodeSuccess, "a.test. 1 IN CNAME b.test.", "b.test. 1 IN CNAME a.test.")
		}, "CNAMEs in a row"},
		"endless": {func(q *dns.Msg) []byte {
			return reply(q, dns.RcodeSuccess, q.Question[0].Name+" 1 IN CNAME x."+q.Question[0].Name)
		}, "CNAMEs in a row"},
	} {
		t.Run(name, func(t *testing.T) {
			r := New([]string{serve(t, c.answer)})
			got, err := r.TXT(t.Context(), "a.test")
			if err == nil || !strings.Contains(err.Error(), c.want) || len(got) != 0 {
				t.Errorf("%v, %v", got, err)
			}
			if _, err := r.Follow(t.Context(), "a.test"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("follow: %v", err)
			}
		})
	}
}

func TestForeignRecordsDoNotCount(t *testing.T) {
	r := New([]string{serve(t, func(q *dns.Msg) []byte {
		return reply(q, dns.RcodeSuccess, "b.test. 1 IN TXT other", "a.test. 1 CH TXT chaos", "a.test. 1 IN TXT own")
	})})
	if got, err := r.TXT(t.Context(), "a.test"); err != nil || !slices.Equal(got, []string{"own"}) {
		t.Fatalf("%v, %v", got, err)
	}
}

func TestNextServer(t *testing.T) {
	broken := serve(t, func(q *dns.Msg) []byte { return reply(q, dns.RcodeServerFailure) })
	good := serve(t, func(q *dns.Msg) []byte { return reply(q, dns.RcodeSuccess, "a.test. 1 IN TXT own") })
	if got, err := New([]string{broken, good}).TXT(t.Context(), "a.test"); err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	gone := serve(t, func(q *dns.Msg) []byte { return reply(q, dns.RcodeNameError) })
	if got, err := New([]string{gone, good}).TXT(t.Context(), "a.test"); err != nil || got != nil {
		t.Fatalf("a name that is not there is an answer: %v, %v", got, err)
	}
}

func TestEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := New([]string{serve(t, func(*dns.Msg) []byte { cancel(); return nil })})
	if _, err := r.TXT(ctx, "a.test"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestTimeout(t *testing.T) {
	r := New([]string{serve(t, func(*dns.Msg) []byte { return nil })})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var failed *Error
	if _, err := r.TXT(ctx, "a.test"); !errors.As(err, &failed) || !failed.Timeout() {
		t.Fatal(err)
	}
}

func TestZone(t *testing.T) {
	const soa = "example.test. 1 IN SOA ns.example.test. root.example.test. 1 2 3 4 5"
	inAuthority := func(q *dns.Msg, code int) []byte {
		m := new(dns.Msg).SetRcode(q, code)
		rr, _ := dns.NewRR(soa)
		m.Ns = append(m.Ns, rr)
		return pack(m)
	}
	for name, answer := range map[string]func(q *dns.Msg) []byte{
		"no data":      func(q *dns.Msg) []byte { return inAuthority(q, dns.RcodeSuccess) },
		"no such name": func(q *dns.Msg) []byte { return inAuthority(q, dns.RcodeNameError) },
		"climbing": func(q *dns.Msg) []byte {
			if q.Question[0].Name == "example.test." {
				return reply(q, dns.RcodeSuccess, soa)
			}
			return reply(q, dns.RcodeNameError)
		},
		"alias": func(q *dns.Msg) []byte {
			if q.Question[0].Name == "a.b.example.test." {
				return reply(q, dns.RcodeSuccess, "a.b.example.test. 1 IN CNAME other.", "other. 1 IN SOA o. o. 1 2 3 4 5")
			}
			return inAuthority(q, dns.RcodeSuccess)
		},
	} {
		r := New([]string{serve(t, answer)})
		if got, err := r.Zone(t.Context(), "a.b.example.test"); err != nil || got != "example.test" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestNoZone(t *testing.T) {
	r := New([]string{serve(t, func(q *dns.Msg) []byte { return reply(q, dns.RcodeNameError) })})
	if got, err := r.Zone(t.Context(), "a.b.example.test"); !errors.Is(err, errNoZone) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestNameServers(t *testing.T) {
	r := New([]string{serve(t, func(q *dns.Msg) []byte {
		switch n, ty := q.Question[0].Name, q.Question[0].Qtype; {
		case n == "example.test." && ty == dns.TypeNS:
			return reply(q, dns.RcodeSuccess, "example.test. 1 IN NS A.ns.test.", "example.test. 1 IN NS b.ns.test.")
		case n == "a.ns.test." && ty == dns.TypeA:
			return reply(q, dns.RcodeSuccess, "a.ns.test. 1 IN A 192.0.2.1")
		case n == "a.ns.test." && ty == dns.TypeAAAA:
			return reply(q, dns.RcodeSuccess, "a.ns.test. 1 IN AAAA 2001:db8::1")
		}
		return reply(q, dns.RcodeServerFailure)
	})})
	got, err := r.NameServers(t.Context(), "example.test")
	if want := "[{a.ns.test [192.0.2.1:53 [2001:db8::1]:53]} {b.ns.test []}]"; err != nil || fmt.Sprint(got) != want {
		t.Fatalf("%v, %v", got, err)
	}
}

// FuzzAnswer lets a server answer anything: every call ends, with an answer or an
// error.
func FuzzAnswer(f *testing.F) {
	q := question("a.example.test", dns.TypeCAA, true)
	f.Add(reply(q, dns.RcodeSuccess, "a.example.test. 1 IN CAA 128 issue \"ca\"")[2:])
	f.Add(reply(q, dns.RcodeSuccess, "a.example.test. 1 IN CNAME a.example.test.")[2:])
	f.Add(reply(q, dns.RcodeNameError)[2:])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		m := new(dns.Msg)
		if m.Unpack(append([]byte{0, 0}, body...)) != nil {
			return
		}
		asks := func(_ context.Context, name string, qtype uint16) (*dns.Msg, error) {
			if !fits(question(name, qtype, true), m) {
				return nil, failed(name, qtype, errors.New("unfit"))
			}
			return m, nil
		}
		for _, qtype := range []uint16{dns.TypeTXT, dns.TypeCAA, dns.TypeNS, dns.TypeA} {
			for _, name := range []string{"a.example.test", ".", ""} {
				a, err := lookup(t.Context(), asks, name, qtype)
				if (a == nil) == (err == nil) {
					t.Fatal("neither answer nor error")
				}
				_, _ = authority(m, canonical(name))
			}
		}
	})
}
