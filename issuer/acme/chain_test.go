// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"
)

func TestChoose(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	link := func(root string, end time.Duration) chain {
		return chain{{Issuer: pkix.Name{CommonName: root}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(end)}}
	}
	old, young, other := link("X1", -time.Minute), link("X2", time.Hour), link("X3", time.Hour)
	for _, test := range []struct {
		title     string
		chains    []chain
		preferred string
		want      chain
		found     bool
	}{
		{"the CA's own order", []chain{young, other}, "", young, true},
		{"the preferred one", []chain{young, other}, "X3", other, true},
		{"one that is valid", []chain{old, young}, "", young, true},
		{"valid before preferred", []chain{old, young}, "X1", young, false},
		{"nothing is valid", []chain{old}, "", old, true},
		{"nobody's", []chain{young, other}, "X9", young, false},
	} {
		got, found := choose(test.chains, test.preferred, now)
		if got[0] != test.want[0] || found != test.found {
			t.Errorf("%s: %s, %v", test.title, got.end(), found)
		}
	}
}

// FuzzParseChain reads what a CA sends for a chain.
func FuzzParseChain(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte(""))
	f.Add([]byte("hello"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parseChain(text)
		if (err == nil) != (len(c) > 0) {
			t.Errorf("%d certificates, %v", len(c), err)
		}
		for _, one := range c {
			if _, err := x509.ParseCertificate(one.Raw); err != nil {
				t.Error(err)
			}
		}
	})
}
