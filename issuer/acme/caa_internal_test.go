// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/resolve"
)

// TestCriticalCAA has records that the test's name server does not have.
func TestCriticalCAA(t *testing.T) {
	ask := caaRequest{identities: []string{"ca.example"}, challenge: "dns-01"}
	ours := resolve.CAA{Tag: "issue", Value: "ca.example"}
	if err := ask.check([]resolve.CAA{ours, {Critical: true, Tag: "future", Value: "x"}}); err == nil || !strings.Contains(err.Error(), `CAA 128 future "x"`) {
		t.Error(err)
	}
	if err := ask.check([]resolve.CAA{ours, {Tag: "future", Value: "x"}, {Critical: true, Tag: "IODEF", Value: "mailto:a@b.example"}}); err != nil {
		t.Error(err)
	}
}

// FuzzCAA reads values that anyone can put into the DNS.
func FuzzCAA(f *testing.F) {
	for _, s := range []string{"", ";", "ca.example", "ca.example; a=b; c = d", "ca.example;;", "=;=", " ca.example\t; validationmethods=dns-01"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		ask := caaRequest{identities: []string{"ca.example"}, challenge: "dns-01", account: "https://ca.example/1"}
		err := ask.check([]resolve.CAA{{Tag: "issue", Value: value}})
		if err == nil && !strings.Contains(strings.ToLower(value), "ca.example") {
			t.Errorf("%q lets it sign", value)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("%q makes lines", value)
		}
	})
}
