// SPDX-License-Identifier: Apache-2.0

package acme_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acme"
)

// TestCAA sets records in a real name server: what forbids the CA to sign is found
// before an order is made.
func TestCAA(t *testing.T) {
	type record struct{ host, tag, value string }
	pebble := acmetest.Start(t, acmetest.Options{CAAIdentities: []string{"ca.example", "old.example"}})
	ca := open(t, pebble)
	account := registered(t, ca).URL
	f := before(t, pebble)
	for _, test := range []struct {
		title   string
		records []record
		name    string
		says    string // "" is that it may sign
	}{
		{"none", nil, "www.@", ""},
		{"ours", []record{{"@", "issue", "ca.example"}}, "www.@", ""},
		{"ours by its other name", []record{{"@", "issue", " OLD.example ; "}}, "www.@", ""},
		{"one of two", []record{{"@", "issue", "other.example"}, {"@", "ISSUE", "ca.example"}}, "www.@", ""},
		{"for another CA", []record{{"@", "issue", "other.example"}}, "www.@", `www.@: at @, CAA 0 issue "other.example" is for another CA: add a record like CAA 0 issue "ca.example" there`},
		{"nobody", []record{{"www.@", "issue", ";"}, {"@", "issue", "ca.example"}}, "www.@", `at www.@, CAA 0 issue ";" forbids all CAs`},
		{"two others", []record{{"@", "issue", "a.example"}, {"@", "issue", "b.example"}}, "www.@", `none of CAA 0 issue "a.example", CAA 0 issue "b.example" allows it`},
		{"the nearest counts", []record{{"www.@", "issue", "ca.example"}, {"@", "issue", "other.example"}}, "www.@", ""},
		{"no property that counts", []record{{"@", "iodef", "mailto:a@b.example"}}, "www.@", ""},
		{"wildcards are no business of names", []record{{"@", "issuewild", "other.example"}}, "www.@", ""},
		{"a wildcard by issue", []record{{"@", "issue", "ca.example"}}, "*.@", ""},
		{"a wildcard by issuewild", []record{{"@", "issue", "other.example"}, {"@", "issuewild", "ca.example"}}, "*.@", ""},
		{"no wildcard", []record{{"@", "issue", "ca.example"}, {"@", "issuewild", ";"}}, "*.@", `*.@: at @, CAA 0 issuewild ";" forbids all CAs`},
		{"our account", []record{{"@", "issue", "ca.example; accounturi=" + account}}, "www.@", ""},
		{"another account", []record{{"@", "issue", "ca.example; AccountURI=https://ca.example/1"}}, "www.@", "is for another account"},
		{"our method", []record{{"@", "issue", "ca.example; validationmethods=http-01,dns-01"}}, "www.@", ""},
		{"another method", []record{{"@", "issue", "ca.example;validationmethods=http-01"}}, "www.@", "does not allow this challenge"},
		{"both", []record{{"@", "issue", "ca.example; validationmethods=dns-01; accounturi=" + account}}, "www.@", ""},
		{"an unknown parameter", []record{{"@", "issue", "ca.example; color=blue"}}, "www.@", ""},
		{"malformed", []record{{"@", "issue", "ca.example; accounturi"}}, "www.@", "is malformed"},
	} {
		t.Run(test.title, func(t *testing.T) {
			zone := strings.ReplaceAll(strings.ToLower(test.title), " ", "-") + ".example"
			zone = strings.ReplaceAll(zone, ",", "")
			in := func(s string) string { return strings.ReplaceAll(s, "@", zone) }
			for _, r := range test.records {
				pebble.DNS.CAA(in(r.host), r.tag, r.value)
			}
			made := f.count(pathNewOrder)
			_, err := ca.Order(t.Context(), issuer.OrderRequest{CSR: request(t, in(test.name))})
			if test.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, issuer.ErrRefused) || !strings.Contains(err.Error(), in(test.says)) {
				t.Errorf("%v; want it refused, with %q", err, in(test.says))
			}
			if f.count(pathNewOrder) != made {
				t.Error("an order was made")
			}
		})
	}

	pebble.DNS.CAA("forbidden.example", "issue", ";")
	order(t, pebble, open(t, pebble, func(c *acme.Config) { c.SkipCAA = true }), issuer.OrderRequest{}, "www.forbidden.example")
}

// TestCAAUnknown leaves to the CA what cannot be looked up here.
func TestCAAUnknown(t *testing.T) {
	pebble := acmetest.Start(t, acmetest.Options{})
	pebble.DNS.ServFail("broken.example")
	order(t, pebble, open(t, pebble), issuer.OrderRequest{}, "www.broken.example")
}
