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
