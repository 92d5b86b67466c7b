// SPDX-License-Identifier: Apache-2.0

package nameserver

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestUpdates holds that the server takes what is signed with its key, and
// nothing else.
func TestUpdates(t *testing.T) {
	for _, algorithm := range []string{"hmac-sha256", "hmac-sha512"} {
		s := Start(t, Options{
			Zones:     []string{"example.test", "other.test"},
			Records:   []string{"www.example.test. 60 A 192.0.2.1"},
			Algorithm: algorithm,
		})
		update := new(dns.Msg).SetUpdate("example.test.")
		rr, err := dns.NewRR("new.example.test. 60 IN TXT value")
		if err != nil {
			t.Fatal(err)
		}
		update.Insert([]dns.RR{rr})
		c := &dns.Client{Net: "tcp", TsigSecret: map[string]string{s.KeyName + ".": s.KeySecret}}
		if m, _, err := c.Exchange(update, s.Addr()); err != nil || m.Rcode == dns.RcodeSuccess {
			t.Fatalf("an update that is not signed: %v, %v", m, err)
		}
		update.SetTsig(s.KeyName+".", algorithm+".", 300, time.Now().Unix())
		if m, _, err := c.Exchange(update, s.Addr()); err != nil || m.Rcode != dns.RcodeSuccess {
			t.Fatalf("%s: %v, %v", algorithm, m, err)
		}
		for name, qtype := range map[string]uint16{"new.example.test.": dns.TypeTXT, "www.example.test.": dns.TypeA, "other.test.": dns.TypeNS} {
			m, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, qtype), s.Addr())
			if err != nil || len(m.Answer) != 1 {
				t.Errorf("%s: %v, %v", name, m, err)
			}
		}
	}
}
