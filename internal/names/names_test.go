// SPDX-License-Identifier: Apache-2.0

package names_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/internal/names"
)

var (
	label63 = strings.Repeat("a", 63)
	name253 = strings.Repeat(label63+".", 3) + strings.Repeat("b", 61)
)

func TestNormalize(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":            "example.com",
		"WWW.Example.COM":        "www.example.com",
		"example.com.":           "example.com",
		"localhost":              "localhost",
		"a":                      "a",
		"3com.com":               "3com.com",
		"1.2.3.4.in-addr.arpa":   "1.2.3.4.in-addr.arpa",
		"0xyz":                   "0xyz",
		"r3---sn-apo3.com":       "r3---sn-apo3.com",
		label63 + ".com":         label63 + ".com",
		name253:                  name253,
		name253 + ".":            name253,
		"Bücher.example":         "xn--bcher-kva.example",
		"bu\u0308cher.example":   "xn--bcher-kva.example", // decomposed
		"XN--BCHER-KVA.example":  "xn--bcher-kva.example",
		"faß.de":                 "xn--fa-hia.de", // nontransitional: not fass.de
		"例え。テスト":                 "xn--r8jz45g.xn--zckzah",
		"ｅｘａｍｐｌｅ．com":            "example.com",
		"exam\u00adple.com":      "example.com", // soft hyphen
		"*.example.com":          "*.example.com",
		"*.Bücher.example.":      "*.xn--bcher-kva.example",
		"10.0.0.1":               "10.0.0.1",
		"2001:DB8:0:0:0:0:0:1":   "2001:db8::1",
		"::1":                    "::1",
		"::ffff:10.0.0.1":        "10.0.0.1",
		"::ffff:a00:1":           "10.0.0.1",
		"2001:db8::10.0.0.1":     "2001:db8::a00:1",
		"xn--zckzah.xn--r8jz45g": "xn--zckzah.xn--r8jz45g",
	} {
		got, err := names.Normalize(in)
		if err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
		if again, err := names.Normalize(got); err != nil || again != got {
			t.Errorf("%q again: %q, %v", got, again, err)
		}
	}
}

func TestNormalizeRefuses(t *testing.T) {
	for in, says := range map[string]string{
		"":                          "it is empty",
		".":                         "empty label",
		"..":                        "empty label",
		"a..b":                      "empty label",
		".example.com":              "empty label",
		"example.com..":             "empty label",
		"\u00ad.example.com":        "empty label", // nothing is left of a soft hyphen
		label63 + "a.com":           "longer than 63",
		name253 + "b":               "longer than 253",
		strings.Repeat("ü", 200):    "longer than",
		strings.Repeat("a.", 1e6):   "longer than 253",
		"*." + name253:              "longer than 253",
		"-a.com":                    "the label -a starts or ends with a hyphen",
		"a-.com":                    "starts or ends with a hyphen",
		"a_b.com":                   "underscore",
		"_acme-challenge.a.com":     "underscore",
		"a＿b.com":                   "characters that a DNS name cannot have",
		"a b.com":                   "white space",
		" a.com":                    "white space",
		"a.com\n":                   "white space",
		"a.com,b.com":               "comma",
		"a!b.com":                   "characters",
		"a\x00b.com":                "characters",
		"a\xffb.com":                "characters",
		"💩\u200d.com":               "characters",
		"xn--a.com":                 "characters",
		"*":                         "wildcard alone",
		"*.":                        "wildcard alone",
		"*.com":                     "at least two labels",
		"*.localhost":               "at least two labels",
		"*.*.example.com":           "only be the first label",
		"a.*.example.com":           "only be the first label",
		"example.*":                 "only be the first label",
		"**.example.com":            "a whole label",
		"w*.example.com":            `give * instead of "w*"`,
		"*w.example.com":            `give * instead of "*w"`,
		"*example.com":              `a whole label`,
		"*..com":                    "empty label",
		"*.1.2.3":                   "no wildcards for IP addresses",
		"*.10.0.0.1":                "no wildcards for IP addresses",
		"10.0.0.*":                  "only be the first label",
		"10.*.0.1":                  "no wildcards for IP addresses",
		"*.::1":                     "colon",
		"*.2001:db8::1":             "colon",
		"example.com:443":           `it has a port; certificates are for all ports: give "example.com"`,
		"10.0.0.1:443":              "it has a port",
		":443":                      "colon",
		"[::1]":                     "brackets",
		"[::1]:443":                 "brackets",
		"::1::":                     "not an IPv6 address",
		"1:2:3:4:5:6:7":             "not an IPv6 address",
		"https://example.com":       "URL",
		"https://example.com/x":     "URL",
		"example.com/x":             "slash",
		"10.0.0.0/8":                "slash",
		"admin@example.com":         "e-mail",
		"mailto:admin@example.com":  "e-mail",
		"fe80::1%eth0":              "zone",
		"::ffff:10.0.0.1%1":         "zone",
		"1.2.3":                     "looks like an IPv4 address",
		"1":                         "looks like an IPv4 address",
		"256.1.1.1":                 "looks like an IPv4 address",
		"1.2.3.4.5":                 "looks like an IPv4 address",
		"01.2.3.4":                  "looks like an IPv4 address",
		"1.2.3.4.":                  "looks like an IPv4 address",
		"0x7f.1":                    "looks like an IPv4 address",
		"0x7f000001":                "looks like an IPv4 address",
		"example.0x":                "looks like an IPv4 address",
		"１.２.３.４":                   "looks like an IPv4 address", // full width digits
		"example.123":               "looks like an IPv4 address",
		"example\u2024com":          "characters", // one dot leader
		"\u2100.example":            "characters", // maps to a/c
		"example.com\u3002\u3002de": "empty label",
	} {
		got, err := names.Normalize(in)
		var bad *names.Error
		if !errors.As(err, &bad) || bad.Name != in || !strings.Contains(err.Error(), says) {
			t.Errorf("%.90q: %q, %v; want %q", in, got, err, says)
		}
		if err != nil && (len(err.Error()) > 600 || strings.ContainsAny(err.Error(), "\n\x00")) {
			t.Errorf("%.90q: the error is not one short line: %q", in, err)
		}
	}
}

func TestNormalizeList(t *testing.T) {
	got, err := names.NormalizeList([]string{"www.Example.com", "10.0.0.1", "b.example", "*.example.com", "www.example.com.", "::ffff:10.0.0.1"})
	if want := []string{"*.example.com", "10.0.0.1", "b.example", "www.example.com"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if got, err := names.NormalizeList([]string{"a.com", "b_c.com", "", "d.com:1"}); got != nil || err == nil ||
		!strings.Contains(err.Error(), `"b_c.com"`) || !strings.Contains(err.Error(), `"": it is empty`) || !strings.Contains(err.Error(), `"d.com:1"`) {
		t.Errorf("%q, %v; want three errors", got, err)
	}
	var many []string
	for i := range names.MaxNames + 1 {
		many = append(many, fmt.Sprintf("n%d.example.com", i))
	}
	if _, err := names.NormalizeList(many); err == nil || !strings.Contains(err.Error(), "101 names") {
		t.Error(err)
	}
	if got, err := names.NormalizeList(many[1:]); err != nil || len(got) != 100 {
		t.Error(len(got), err)
	}
	if _, err := names.NormalizeList(nil); err == nil {
		t.Error("no names are a list")
	}
}

func TestPlan(t *testing.T) {
	for _, test := range []struct {
		domain              string
		wildcard, subdomain bool
		want                []string
		says                string
	}{
		{domain: "example.com", want: []string{"www.example.com", "example.com"}},
		{domain: "Bücher.example.", want: []string{"www.xn--bcher-kva.example", "xn--bcher-kva.example"}},
		{domain: "example.com", wildcard: true, want: []string{"*.example.com", "example.com"}},
		{domain: "api.example.com", subdomain: true, want: []string{"api.example.com"}},
		{domain: "www.example.com", subdomain: true, want: []string{"www.example.com"}},
		{domain: "localhost", subdomain: true, want: []string{"localhost"}},
		{domain: "wwwx.example.com", want: []string{"www.wwwx.example.com", "wwwx.example.com"}},
		{domain: "example.com", wildcard: true, subdomain: true, says: "give one of them"},
		{domain: "10.0.0.1", says: "--names 10.0.0.1"},
		{domain: "::1", subdomain: true, says: "--names ::1"},
		{domain: "10.0.0.1", wildcard: true, subdomain: true, says: "--names"},
		{domain: "www.example.com", says: "give example.com for both, or --subdomain for www.example.com alone"},
		{domain: "WWW.example.com", wildcard: true, says: "give --wildcard with example.com for *.example.com"},
		{domain: "www.com", says: "--subdomain for www.com alone"},
		{domain: "*.example.com", says: "--wildcard example.com"},
		{domain: "*.example.com", wildcard: true, says: "--wildcard example.com"},
		{domain: "localhost", says: "--subdomain"},
		{domain: "localhost", wildcard: true, says: "--subdomain"},
		{domain: "www", says: "--subdomain"},
	} {
		got, err := names.Plan(test.domain, test.wildcard, test.subdomain)
		if test.says == "" {
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%+v: %q, %v", test, got, err)
			}
			continue
		}
		var usage *names.UsageError
		if got != nil || !errors.As(err, &usage) || usage.Domain != test.domain || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%+v: %q, %v", test, got, err)
		}
	}
	for _, domain := range []string{"", "a_b.com", "https://example.com", strings.Repeat("a.", 125) + "com"} {
		var bad *names.Error
		if got, err := names.Plan(domain, false, false); got != nil || !errors.As(err, &bad) {
			t.Errorf("%q: %q, %v; want an *Error", domain, got, err)
		}
	}
}

// FuzzNormalize checks that a normal form stays what it is and that a
// certificate can carry it: crypto/x509 finds a host of that name in it.
func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"www.example.com", "*.example.com.", "Bücher.example", "xn--bcher-kva.example", "::ffff:10.0.0.1", "0x7f.1", "a_b", "例え。テスト", name253} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got, err := names.Normalize(in)
		if err != nil {
			if got != "" {
				t.Errorf("%q: %q beside the error %v", in, got, err)
			}
			return
		}
		if again, err := names.Normalize(got); err != nil || again != got {
			t.Errorf("%q: %q, and again %q, %v", in, got, again, err)
		}
		var cert x509.Certificate
		if ip, err := netip.ParseAddr(got); err == nil {
			cert.IPAddresses = []net.IP{ip.AsSlice()}
		} else {
			cert.DNSNames = []string{got}
		}
		if err := cert.VerifyHostname(strings.Replace(got, "*", "any", 1)); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	})
}
