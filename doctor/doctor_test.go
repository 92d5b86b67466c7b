// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/doctor"
)

// pki is what the broken servers are made of.
type pki struct {
	root, intermediate, other *authority
	full                      []*authority // what is sent after a leaf of intermediate
}

func newPKI(t testing.TB) *pki {
	root := newCA(t, "Test root", nil)
	between := newCA(t, "Test sub", root)
	return &pki{root, between, newCA(t, "Other root", nil), []*authority{between}}
}

// A broken server and what is to be found of it: "severity cause", and a phrase of
// detail or remedy for each.
type broken struct {
	name    string
	server  func(testing.TB, *pki) *tls.Config
	options func(testing.TB, *pki) doctor.Options // nil: the root is in the pool
	want    []string
	phrases []string
}

func with(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// served makes a server of a leaf that the intermediate has signed.
func served(changes ...change) func(testing.TB, *pki) *tls.Config {
	return func(t testing.TB, p *pki) *tls.Config { return with(p.intermediate.leaf(t, p.full, changes...)) }
}

var certificates = []broken{
	{name: "good", server: served()},
	{
		name:   "self-signed",
		server: func(t testing.TB, p *pki) *tls.Config { return with((*authority)(nil).leaf(t, nil, commonName("me"))) },
		want:   []string{"error unknown-authority"}, phrases: []string{`The leaf "me" is signed by itself`, "Have it issued by a CA"},
	},
	{
		name: "self-signed and in the pool", server: func(t testing.TB, p *pki) *tls.Config { return with((*authority)(nil).leaf(t, nil)) },
		options: func(testing.TB, *pki) doctor.Options { return doctor.Options{} }, // replaced below
	},
	{
		name:   "unknown root, sent",
		server: func(t testing.TB, p *pki) *tls.Config { return with(p.other.leaf(t, []*authority{p.other})) },
		want:   []string{"error unknown-authority"}, phrases: []string{`ends in the root "Other root"`, `The pool has "CN=Test root"`, "--ca FILE"},
	},
	{
		name:   "unknown root, not sent",
		server: func(t testing.TB, p *pki) *tls.Config { return with(p.other.leaf(t, nil)) },
		want:   []string{"error unknown-authority"}, phrases: []string{`"CN=Other root", which is neither sent nor in the pool`, "If it is an intermediate, the server has to send it"},
	},
	{
		name: "unknown root above an intermediate",
		server: func(t testing.TB, p *pki) *tls.Config {
			sub := newCA(t, "Other issuing CA", p.other)
			return with(sub.leaf(t, []*authority{sub}))
		},
		want: []string{"error unknown-authority"}, phrases: []string{`The intermediate "Other issuing CA" is signed by "CN=Other root"`},
	},
	{
		name:   "root of the same name with another key",
		server: func(t testing.TB, p *pki) *tls.Config { return with(newCA(t, "Test root", nil).leaf(t, nil)) },
		want:   []string{"error unknown-authority"}, phrases: []string{"a CA of that name, but with another key", "somebody else uses its name"},
	},
	{
		name: "incomplete, by the URL of the issuer",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.intermediate.leaf(t, nil, func(c *x509.Certificate) { c.IssuingCertificateURL = []string{"http://ca.example/sub.der"} }))
		},
		want: []string{"error incomplete-chain"}, phrases: []string{`"http://ca.example/sub.der"`, "into the server's file, after the leaf"},
	},
	{
		name: "incomplete, by the name of the issuer",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(newCA(t, "Test intermediate", p.root).leaf(t, nil))
		},
		want: []string{"error incomplete-chain"}, phrases: []string{"it calls itself one"},
	},
	{
		name: "incomplete, by the organization of the issuer",
		server: func(t testing.TB, p *pki) *tls.Config {
			p.root = newCA(t, "Test root", nil, organization("Example"))
			return with(newCA(t, "R1", p.root, organization("Example")).leaf(t, nil))
		},
		want: []string{"error incomplete-chain"}, phrases: []string{"of the same organization"},
	},
	{
		name:   "incomplete, with another intermediate sent",
		server: func(t testing.TB, p *pki) *tls.Config { return with(newCA(t, "R1", p.root).leaf(t, p.full)) },
		want:   []string{"error incomplete-chain"}, phrases: []string{`such as "Test sub", and none of them signed the leaf`},
	},
	{
		name:   "incomplete, with the intermediate of an earlier generation",
		server: func(t testing.TB, p *pki) *tls.Config { return with(newCA(t, "Test sub", p.root).leaf(t, p.full)) },
		want:   []string{"error incomplete-chain"}, phrases: []string{"has another key", "issued together with the leaf"},
	},
	{
		name:    "incomplete, and the intermediate is in the pool",
		server:  func(t testing.TB, p *pki) *tls.Config { return with(p.intermediate.leaf(t, nil)) },
		options: func(_ testing.TB, p *pki) doctor.Options { return doctor.Options{Roots: pool(p.root, p.intermediate)} },
		want:    []string{"warning incomplete-chain"}, phrases: []string{`"Test sub" is not sent`},
	},
	{
		name: "expired", server: served(validity(-48*time.Hour, -25*time.Hour)),
		want: []string{"error expired"}, phrases: []string{"The leaf", "25 hours ago", "still has the old one"},
	},
	{
		name: "not yet valid", server: served(validity(time.Hour, 25*time.Hour)),
		want: []string{"error not-yet-valid"}, phrases: []string{"The leaf", "clock"},
	},
	{
		name: "expired intermediate",
		server: func(t testing.TB, p *pki) *tls.Config {
			old := newCA(t, "Old sub", p.root, validity(-48*time.Hour, -24*time.Hour))
			return with(old.leaf(t, []*authority{old}, validity(-47*time.Hour, time.Hour)))
		},
		want: []string{"error expired", "warning expires-soon"}, phrases: []string{`The intermediate "Old sub" ended`},
	},
	{
		name: "expired root",
		server: func(t testing.TB, p *pki) *tls.Config {
			p.root = newCA(t, "Old root", nil, validity(-48*time.Hour, -24*time.Hour))
			return with(p.root.leaf(t, nil, validity(-47*time.Hour, 24*time.Hour)))
		},
		want: []string{"error expired"}, phrases: []string{`The root "Old root" ended`},
	},
	{
		name: "expired and unknown",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.other.leaf(t, nil, validity(-48*time.Hour, -24*time.Hour)))
		},
		want: []string{"error expired", "error unknown-authority"},
	},
	{
		name: "expires soon", server: served(validity(-23*time.Hour, time.Hour)),
		want: []string{"warning expires-soon"}, phrases: []string{"Renew it now", "of a lifetime of 24 hours"},
	},
	{
		name: "another name", server: served(names("www.example.com", "example.com")),
		want: []string{"error name-mismatch"}, phrases: []string{`does not cover "localhost"; it is for "www.example.com", "example.com"`, "(SNI)"},
	},
	{
		name: "common name only", server: served(names(), commonName("localhost")),
		want: []string{"error name-mismatch"}, phrases: []string{"as its common name only", "subject alternative name"},
	},
	{
		name: "no name", server: served(names()),
		want: []string{"error name-mismatch"}, phrases: []string{"no names at all"},
	},
	{
		name: "wildcard too high", server: served(names("*.example.com")),
		options: func(_ testing.TB, p *pki) doctor.Options {
			return doctor.Options{Roots: pool(p.root), ServerName: "a.b.example.com"}
		},
		want: []string{"error name-mismatch"}, phrases: []string{`"*.example.com", and a wildcard stands for exactly one label`},
	},
	{
		name: "wildcard too low", server: served(names("*.example.com")),
		options: func(_ testing.TB, p *pki) doctor.Options {
			return doctor.Options{Roots: pool(p.root), ServerName: "example.com"}
		},
		want: []string{"error name-mismatch"}, phrases: []string{"exactly one label"},
	},
	{
		name: "address not covered", server: served(),
		options: func(_ testing.TB, p *pki) doctor.Options {
			return doctor.Options{Roots: pool(p.root), ServerName: "127.0.0.1"}
		},
		want: []string{"error name-mismatch"}, phrases: []string{"has no IP addresses", "--servername NAME"},
	},
	{
		name: "for clients", server: served(usage(x509.ExtKeyUsageClientAuth)),
		want: []string{"error missing-eku"}, phrases: []string{"may be used for clientAuth only, and not for serverAuth", "Have it issued with the extended key usage serverAuth"},
	},
	{
		name: "intermediate for clients",
		server: func(t testing.TB, p *pki) *tls.Config {
			sub := newCA(t, "Client sub", p.root, usage(x509.ExtKeyUsageClientAuth))
			return with(sub.leaf(t, []*authority{sub}))
		},
		want: []string{"error missing-eku"}, phrases: []string{`The intermediate "Client sub"`},
	},
	{
		name: "intermediate that is no CA",
		server: func(t testing.TB, p *pki) *tls.Config {
			sub := newCA(t, "No CA", p.root, func(c *x509.Certificate) { c.IsCA = false })
			return with(sub.leaf(t, []*authority{sub}))
		},
		want: []string{"error invalid-certificate"}, phrases: []string{"not one of a CA"},
	},
	{
		name: "intermediate for other names",
		server: func(t testing.TB, p *pki) *tls.Config {
			sub := newCA(t, "Narrow", p.root, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} })
			return with(sub.leaf(t, []*authority{sub}))
		},
		want: []string{"error invalid-certificate"}, phrases: []string{"may not sign a name"},
	},
	{
		name: "order",
		server: func(t testing.TB, p *pki) *tls.Config {
			sub := newCA(t, "Sub sub", p.intermediate)
			return with(sub.leaf(t, []*authority{p.intermediate, sub}))
		},
		want: []string{"warning chain-order"}, phrases: []string{"Put the leaf first"},
	},
	{
		name: "root sent along",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.intermediate.leaf(t, []*authority{p.intermediate, p.root}))
		},
		want: []string{"note superfluous"}, phrases: []string{`The root "Test root" is sent along`},
	},
	{
		name: "superfluous, twice and expired",
		server: func(t testing.TB, p *pki) *tls.Config {
			old := newCA(t, "Old sub", p.root, validity(-48*time.Hour, -24*time.Hour))
			return with(p.intermediate.leaf(t, []*authority{p.intermediate, newCA(t, "Unneeded", p.root), p.intermediate, old}))
		},
		want:    []string{"warning expired", "note superfluous", "note superfluous"},
		phrases: []string{`Certificate 3, "Unneeded", is not needed`, `Certificate 4, "Test sub", is sent twice`, `Certificate 5, "Old sub", is not needed and has ended`},
	},
	{
		name: "too many",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.intermediate.leaf(t, slices.Repeat([]*authority{p.intermediate}, 30)))
		},
		want:    append([]string{"warning superfluous"}, slices.Repeat([]string{"note superfluous"}, 18)...),
		phrases: []string{"31 certificates are sent; only the first 20 are shown"},
	},
	{
		name: "SHA-1",
		server: func(t testing.TB, p *pki) *tls.Config {
			p.root = &authority{key: rsaKey(t, 2048)}
			p.root.cert = sign(t, nil, p.root.key, commonName("RSA root"), func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true })
			return with(p.root.leaf(t, nil, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.SHA1WithRSA }))
		},
		want: []string{"error weak-signature"}, phrases: []string{"SHA1-RSA", "SHA-256"},
	},
	{
		name: "RSA of 1024 bits",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.intermediate.leafFor(t, rsaKey(t, 1024), p.full))
		},
		want: []string{"warning weak-key"}, phrases: []string{"RSA key of 1024 bits"},
	},
}

func TestExamineCertificates(t *testing.T) {
	for _, b := range certificates {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s/%s", b.name, tls.VersionName(version)), func(t *testing.T) {
				t.Parallel()
				p := newPKI(t)
				config := b.server(t, p)
				config.MaxVersion = version
				options := doctor.Options{Roots: pool(p.root)}
				if b.options != nil {
					options = b.options(t, p)
				}
				if options.Roots == nil {
					options.Roots = pool(&authority{cert: config.Certificates[0].Leaf})
				}
				r := examine(t, serve(t, config, nil), options)
				check(t, r, b.want, b.phrases)
				if r.Reached != doctor.Handshake || r.Version != tls.VersionName(version) {
					t.Errorf("it came to %s by %s", r.Reached, r.Version)
				}
				agree(t, config.Certificates[0], options, r)
			})
		}
	}
}

// check compares the findings, which are worst first, and looks for phrases.
func check(t *testing.T, r *doctor.Report, want, phrases []string) {
	t.Helper()
	text := r.String()
	compare(t, r.Findings, want, phrases)
	rank := []doctor.Severity{doctor.Error, doctor.Warning, doctor.Note}
	if !slices.IsSortedFunc(r.Findings, func(a, b doctor.Finding) int {
		return slices.Index(rank, a.Severity) - slices.Index(rank, b.Severity)
	}) {
		t.Errorf("the findings are not worst first")
	}
	if t.Failed() {
		t.Log("\n" + text)
	}
	if sum := strings.Contains(text, "no fault found"); sum == r.Failed() {
		t.Errorf("Failed is %v, and the text says\n%s", r.Failed(), text)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func compare(t *testing.T, list []doctor.Finding, want, phrases []string) {
	t.Helper()
	var got, text []string
	for _, f := range list {
		got = append(got, fmt.Sprintf("%s %s", f.Severity, f.Cause))
		text = append(text, f.Detail+" "+f.Remedy)
		if f.Detail == "" || f.Remedy == "" && f.Cause != doctor.Other {
			t.Errorf("%s says %q, and the remedy %q", f.Cause, f.Detail, f.Remedy)
		}
	}
	slices.Sort(got)
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q\n%s", got, want, strings.Join(text, "\n"))
	}
	for _, phrase := range phrases {
		if !strings.Contains(strings.Join(text, "\n"), phrase) {
			t.Errorf("nothing says %q:\n%s", phrase, strings.Join(text, "\n"))
		}
	}
}

// agree holds that there is an error if and only if crypto/tls refuses the server.
func agree(t *testing.T, cert tls.Certificate, o doctor.Options, r *doctor.Report) {
	t.Helper()
	between := x509.NewCertPool()
	for _, der := range cert.Certificate[1:] {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		between.AddCert(c)
	}
	name := o.ServerName
	if name == "" {
		name = "localhost"
	}
	_, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: o.Roots, Intermediates: between})
	if (err != nil) != r.Failed() || r.Verified == r.Failed() {
		t.Errorf("crypto/x509 says %v, and the report %v", err, r.Failed())
	}
}
