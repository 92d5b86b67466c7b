// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/issuer/policy"
)

func constraints(t testing.TB, permitted, excluded policy.Names) *policy.Constraints {
	t.Helper()
	c, err := policy.NewConstraints(permitted, excluded)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// names are asked of every constraint.
var names = []string{
	"example.com", "EXAMPLE.com", "www.example.com", "a.b.example.com", "badexample.com", "com", "localhost", "*.example.com", "*.b.example.com", "*.com.example",
	"secret.example.com", "x.secret.example.com", "*.secret.example.com", "example.org", "xexample.com.org",
	"10.0.0.1", "10.255.255.255", "11.0.0.0", "192.0.2.1", "2001:db8::1", "2001:db9::1", "::1",
	"spiffe://example.com/web", "spiffe://EXAMPLE.com/web", "spiffe://a.example.com/web", "spiffe://example.org/x", "https://example.com:8443/", "https://10.0.0.1/", "https://[2001:db8::1]:443/", "spiffe://localhost/a",
}

// TestConstraintsAsClientsDo: what is permitted here is what crypto/x509
// believes below a CA with these constraints, name by name.
func TestConstraintsAsClientsDo(t *testing.T) {
	for _, test := range []struct{ permitted, excluded policy.Names }{
		{permitted: policy.Names{DNS: []string{"example.com"}}},
		{permitted: policy.Names{DNS: []string{"b.example.com", "localhost"}}},
		{excluded: policy.Names{DNS: []string{"secret.example.com"}}},
		{permitted: policy.Names{DNS: []string{"example.com", "com.example"}}, excluded: policy.Names{DNS: []string{"secret.example.com"}}},
		{permitted: policy.Names{IP: []string{"10.0.0.0/8", "2001:db8::/32"}}},
		{permitted: policy.Names{IP: []string{"10.0.0.1"}}, excluded: policy.Names{IP: []string{"::/0"}}},
		{excluded: policy.Names{IP: []string{"0.0.0.0/0", "::/0"}}},
		{permitted: policy.Names{URI: []string{"example.com"}}},
		{permitted: policy.Names{URI: []string{".example.com", "localhost"}}},
		{excluded: policy.Names{URI: []string{"example.com", ".example.org"}}},
		{permitted: policy.Names{DNS: []string{"example.com"}, IP: []string{"10.0.0.0/8"}, URI: []string{"example.com"}}},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			c := constraints(t, test.permitted, test.excluded)
			verify := below(t, c)
			for _, name := range names {
				want, got := verify(name), c.Permits(name)
				// crypto/x509 reads a host in a constraint as that and all below it.
				loose := name == "spiffe://a.example.com/web" && slices.Equal(test.permitted.URI, []string{"example.com"})
				if (want == nil) != (got == nil) && (got == nil || !loose) {
					t.Errorf("%s: here %v, crypto/x509 %v", name, got, want)
				}
			}
		})
	}
}

// below returns a function that signs and verifies certificates below a CA.
func below(t *testing.T, c *policy.Constraints) func(name string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	template.Subject.CommonName = "CA"
	c.Add(template)
	sign := func(template, parent *x509.Certificate) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	ca := sign(template, template)
	if again, err := policy.ConstraintsOf(ca); err != nil || !again.Equal(c) {
		t.Fatalf("read back as %v and %v: %v", again.Permitted(), again.Excluded(), err)
	}
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	opts.Roots.AddCert(ca)
	return func(name string) error {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour)}
		ip, err := netip.ParseAddr(name)
		switch {
		case err == nil:
			leaf.IPAddresses = append(leaf.IPAddresses, ip.AsSlice())
		case strings.Contains(name, "://"):
			u, err := url.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			leaf.URIs = append(leaf.URIs, u)
		default:
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
		_, err = sign(leaf, ca).Verify(opts)
		return err
	}
}

func TestConstraintsOfManyKinds(t *testing.T) {
	var none *policy.Constraints
	if c := constraints(t, policy.Names{}, policy.Names{}); c != nil || !c.Equal(none) || c.Permits("anything") != nil || !c.Permitted().Empty() || !c.Excluded().Empty() {
		t.Error("no constraints are some")
	}
	a := constraints(t, policy.Names{DNS: []string{"b.example", "a.example"}, IP: []string{"10.0.0.1"}}, policy.Names{})
	b := constraints(t, policy.Names{IP: []string{"10.0.0.1/32"}, DNS: []string{"a.example", "b.example"}}, policy.Names{})
	if !a.Equal(b) || a.Equal(none) || a.Equal(constraints(t, policy.Names{}, policy.Names{DNS: []string{"b.example", "a.example"}, IP: []string{"10.0.0.1"}})) {
		t.Error("equality is wrong")
	}
	var many []string
	for i := range policy.MaxNames + 1 {
		many = append(many, fmt.Sprintf("a%d.example", i))
	}
	for want, n := range map[string]policy.Names{
		"33 name constraints: at most 32":            {DNS: many},
		`"*.example.com" is not a DNS name`:          {DNS: []string{"*.example.com"}},
		`".example.com" is not a DNS name`:           {DNS: []string{".example.com"}},
		`"Example.com" is not a DNS name`:            {DNS: []string{"Example.com"}},
		`"" is not a DNS name`:                       {DNS: []string{""}},
		`"a_b" is not a DNS name`:                    {DNS: []string{"a_b"}},
		`"-a" is not a DNS name`:                     {DNS: []string{"-a"}},
		"is longer than 253":                         {DNS: []string{strings.Repeat("a.", 127)}},
		`"10" is neither an IP address`:              {IP: []string{"10"}},
		`"fe80::1%eth0" is neither`:                  {IP: []string{"fe80::1%eth0"}},
		`"::ffff:10.0.0.1" is neither`:               {IP: []string{"::ffff:10.0.0.1"}},
		"is an address in a range: write 10.0.0.0/8": {IP: []string{"10.1.0.0/8"}},
		`"spiffe://a" is not a DNS name`:             {URI: []string{"spiffe://a"}},
		"a dot and a domain for the hosts below":     {URI: []string{".."}},
	} {
		if _, err := policy.NewConstraints(n, policy.Names{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
		if _, err := policy.NewConstraints(policy.Names{}, n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("excluded: %v; want %q", err, want)
		}
	}
}

func TestConstraintsSayWhich(t *testing.T) {
	c := constraints(t, policy.Names{DNS: []string{"example.com"}}, policy.Names{DNS: []string{"secret.example.com"}})
	for name, want := range map[string]string{
		"*.example.com": `"*.example.com" is excluded by the name constraint "secret.example.com"`,
		"example.org":   `"example.org" is not among the DNS names that the name constraints in the CA's certificate permit (example.com): another CA is needed`,
	} {
		if err := c.Permits(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
}

func TestUnknownConstraintsAreRefused(t *testing.T) {
	if _, err := policy.ConstraintsOf(&x509.Certificate{PermittedEmailAddresses: []string{"example.com"}}); err == nil {
		t.Error("constraints of mail addresses are overlooked")
	}
}

func TestRules(t *testing.T) {
	for _, test := range []struct {
		of      policy.Names
		allowed []string
		refused []string
	}{
		{policy.Names{DNS: []string{"example.com"}}, []string{"example.com", "Example.com"}, []string{"www.example.com", "*.example.com", "10.0.0.1", "spiffe://example.com/a"}},
		{policy.Names{DNS: []string{"*.example.com"}}, []string{"www.example.com", "*.example.com"}, []string{"example.com", "a.b.example.com", "xexample.com", "*.b.example.com"}},
		{policy.Names{DNS: []string{".example.com"}}, []string{"www.example.com", "a.b.example.com", "*.example.com", "*.b.example.com"}, []string{"example.com", "xexample.com"}},
		{policy.Names{DNS: []string{"."}}, []string{"localhost", "*.a.b", "x.y"}, []string{"10.0.0.1", "https://a/b"}},
		{policy.Names{IP: []string{"10.0.0.0/8", "::1"}}, []string{"10.1.2.3", "::1"}, []string{"::ffff:10.1.2.3", "11.0.0.1", "::2", "example.com"}},
		{
			policy.Names{URI: []string{"spiffe://example.com/ns/a", "spiffe://example.com/web/*", "https://Host:1/*"}},
			[]string{"spiffe://example.com/ns/a", "SPIFFE://Example.com/web/x", "spiffe://example.com/web/x/y", "https://host:1/a"},
			[]string{
				"spiffe://example.com/ns/b", "spiffe://example.com/ns/a/b", "spiffe://example.com/web", "spiffe://example.com/web/", "spiffe://example.com/web/../ns", "spiffe://example.com/WEB/x",
				"spiffe://example.com/web/x?y", "spiffe://example.com/web/%2e%2e/x", "spiffe://me@example.com/web/x", "spiffe://example.com:1/web/x", "spiffe://example.org/web/x", "https://host/a", "example.com", "://",
			},
		},
	} {
		r, err := policy.NewRules(test.of, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range test.allowed {
			if err := r.Permits(name); err != nil {
				t.Error(err)
			}
		}
		for _, name := range test.refused {
			if err := r.Permits(name); err == nil || !strings.Contains(err.Error(), "it allows "+test.of.String()) {
				t.Errorf("%s: %s: %v", test.of, name, err)
			}
		}
	}
}

func TestRulesOfUsages(t *testing.T) {
	for _, r := range []*policy.Rules{nil, rules(t, policy.Names{DNS: []string{"a"}})} {
		if !slices.Equal(r.Usages(), policy.AllUsages()) || r.PermitsUsage(x509.ExtKeyUsageClientAuth) != nil {
			t.Error("without usages not both are allowed")
		}
		if r.PermitsUsage(x509.ExtKeyUsageCodeSigning) == nil {
			t.Error("code signing is allowed")
		}
	}
	r := rules(t, policy.Names{}, "server")
	if err := r.Permits("any.name"); err != nil {
		t.Error(err)
	}
	if err := r.PermitsUsage(x509.ExtKeyUsageClientAuth); err == nil || !strings.Contains(err.Error(), "for the usage client: it allows server") {
		t.Error(err)
	}
	if r.PermitsUsage(x509.ExtKeyUsageServerAuth) != nil || len(r.Usages()) != 1 {
		t.Error("what is allowed is not")
	}
}

func rules(t testing.TB, n policy.Names, uses ...string) *policy.Rules {
	t.Helper()
	r, err := policy.NewRules(n, uses)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBadRulesAreRefused(t *testing.T) {
	if r := rules(t, policy.Names{}); r != nil || r.Permits("a") != nil {
		t.Error("no rules are some")
	}
	for want, n := range map[string]policy.Names{
		`"**.example.com" is not a DNS name`:            {DNS: []string{"**.example.com"}},
		`"" is not a DNS name`:                          {DNS: []string{"*."}},
		`"w*.example.com" is not`:                       {DNS: []string{"w*.example.com"}},
		"is neither an IP address":                      {IP: []string{"*"}},
		`"mailto:a@b" is not a URI`:                     {URI: []string{"mailto:a@b"}},
		`"spiffe://*/a" is not a URI`:                   {URI: []string{"spiffe://*/a"}},
		`"spiffe://a/../b" is not a URI`:                {URI: []string{"spiffe://a/../b"}},
		`"://a" is not a URI`:                           {URI: []string{"://a"}},
		"34 patterns of names: at most 32 are possible": {DNS: make([]string, 34)},
	} {
		if _, err := policy.NewRules(n, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	if _, err := policy.NewRules(policy.Names{}, []string{"any"}); err == nil {
		t.Error("an unknown usage is taken")
	}
}

// FuzzNames: no name that is asked for makes the rules panic, and none gets in
// under a pattern that it does not start with.
func FuzzNames(f *testing.F) {
	for _, n := range append(names, "", ".", "*", "spiffe://", "a://b/%2f", "://x") {
		f.Add(n)
	}
	c := constraints(f, policy.Names{DNS: []string{"example.com"}, IP: []string{"10.0.0.0/8"}, URI: []string{".example.com"}}, policy.Names{DNS: []string{"secret.example.com"}})
	r := rules(f, policy.Names{DNS: []string{".example.com"}, URI: []string{"spiffe://example.com/web/*"}})
	f.Fuzz(func(t *testing.T, name string) {
		_ = c.Permits(name)
		if r.Permits(name) != nil {
			return
		}
		lower := strings.ToLower(name)
		if !strings.HasSuffix(lower, ".example.com") && !strings.HasPrefix(lower, "spiffe://example.com/web/") {
			t.Fatalf("%q is allowed", name)
		}
	})
}
