// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/doctor"
)

func TestParseAddress(t *testing.T) {
	for in, want := range map[string]string{
		"example.com":                    "example.com:443",
		" example.com \n":                "example.com:443",
		"example.com:8443":               "example.com:8443",
		"my_service:1":                   "my_service:1",
		"127.0.0.1":                      "127.0.0.1:443",
		"127.0.0.1:65535":                "127.0.0.1:65535",
		"::1":                            "[::1]:443",
		"[::1]":                          "[::1]:443",
		"[::1]:8443":                     "[::1]:8443",
		"[fe80::1%eth0]:443":             "[fe80::1%eth0]:443",
		"https://example.com":            "example.com:443",
		"https://example.com/a:b?c#d":    "example.com:443",
		"https://u:p@example.com:8443/a": "example.com:8443",
		"https://[::1]:8443/":            "[::1]:8443",
		"tls://example.com:4222":         "example.com:4222",
	} {
		if got, err := doctor.ParseAddress(in); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for in, phrase := range map[string]string{
		"":                            "no host",
		":443":                        "no host",
		"https://":                    "no host",
		"example.com:":                "the port is",
		"example.com:0":               "from 1 to 65535",
		"example.com:65536":           "from 1 to 65535",
		"example.com:https":           "a number",
		"::1:::443":                   "[::1]:443",
		"example.com/path":            "no DNS name",
		"user@example.com":            "no DNS name",
		"exam ple.com":                "no DNS name",
		"\x1b[2J":                     `\x1b[2J`,
		"http://example.com":          "plain HTTP",
		"https://%zz":                 "not a URL",
		strings.Repeat("a", 1000):     "longer",
		strings.Repeat("ä:", 100_000): "HOST:PORT",
	} {
		got, err := doctor.ParseAddress(in)
		if err == nil || !strings.Contains(err.Error(), phrase) || len(err.Error()) > 1000 || !plain(err.Error()) {
			t.Errorf("%.50q: %q, %v", in, got, err)
		}
	}
}

// plain reports whether a text has nothing that a terminal obeys.
func plain(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !strconv.IsPrint(r) }) < 0
}

// TestHostileNames: a server puts what it likes into its certificate.
func TestHostileNames(t *testing.T) {
	evil := "\x1b[2J\u202e\u009b31m\u0000\"\\" + strings.Repeat("é", 1000)
	p := newPKI(t)
	sub := newCA(t, evil, p.root, organization(evil), func(c *x509.Certificate) { c.Subject.CommonName = evil })
	many := func(c *x509.Certificate) {
		c.DNSNames, c.Subject.CommonName = nil, evil
		for i := range 3000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("\x1b[%dm.example", i))
		}
		c.IssuingCertificateURL = slices.Repeat([]string{"http://\x1b[2J.example/" + strings.Repeat("a", 1000)}, 50)
	}
	config := with(sub.leaf(t, nil, many))
	config.NextProtos = []string{"\x1b[2J"}
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, pool(sub)
	for i := range 200 {
		config.ClientCAs.AddCert(newCA(t, evil[:12]+strconv.Itoa(i), nil).cert)
	}
	mine := p.other.leaf(t, nil, many)
	r := doctor.Examine(t.Context(), serve(t, config, nil), doctor.Options{
		Roots: pool(p.root), Certificate: &mine, Expect: mine.Leaf, NextProtos: []string{"\x1b[2J"}, ServerName: "\x1b[2J.example",
	})
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if !plain(string(text)) || !plain(r.String()) {
		t.Errorf("not all is escaped:\n%q", r)
	}
	if len(text) > 64<<10 || len(r.String()) > 16<<10 {
		t.Errorf("the report has %d bytes, and %d for people", len(text), len(r.String()))
	}
	if r.Reached == doctor.Connected {
		t.Fatalf("it shows no certificate:\n%s", r)
	}
	if l := r.Chain[0]; len(l.Names) != 100 || l.NamesLeftOut != 2900 {
		t.Errorf("%d names are shown, %d left out", len(l.Names), l.NamesLeftOut)
	}
	if r.AcceptableCAsLeftOut == 0 {
		t.Errorf("%d CAs are shown and none left out", len(r.AcceptableCAs))
	}
}

// rewritten changes one element of a leaf's TBSCertificate (RFC 5280, section 4.1), for
// what crypto/x509 does not issue, and signs it again.
func rewritten(t testing.TB, by *authority, cert tls.Certificate, element int, der string) tls.Certificate {
	t.Helper()
	var outer struct {
		TBS       []asn1.RawValue
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.Certificate[0], &outer); err != nil {
		t.Fatal(err)
	}
	outer.TBS[element] = asn1.RawValue{FullBytes: []byte(der)}
	tbs, err := asn1.Marshal(outer.TBS)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(tbs)
	if outer.Signature.Bytes, err = by.key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	outer.Signature.BitLength = 8 * len(outer.Signature.Bytes)
	if cert.Certificate[0], err = asn1.Marshal(outer); err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestHostileTimes: with an offset, a certificate's times leave the years that JSON has.
func TestHostileTimes(t *testing.T) {
	p := newPKI(t)
	always := "\x30\x2a\x18\x1300000101000000+0100\x18\x1399991231235959-0100"
	cert := rewritten(t, p.root, p.root.leaf(t, nil), 4, always)
	r := examine(t, serve(t, with(cert), nil), doctor.Options{Roots: pool(p.root)})
	check(t, r, nil, nil)
	if l := r.Chain[0]; l.NotBefore.Year() != 0 || l.NotAfter.Year() != 9999 {
		t.Errorf("from %v to %v", l.NotBefore, l.NotAfter)
	}
}

// FuzzExplain: whatever the text, an explanation is there, short and plain.
func FuzzExplain(f *testing.F) {
	for _, seed := range []string{
		"", "remote error: tls: bad certificate", "http: TLS handshake error from [::1]:1: EOF", "remote error: tls: alert(250)",
		"x509: certificate is valid for \x1b[2J, not b", "tls: client didn't provide a certificate", strings.Repeat("\xff", 300),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list := doctor.Explain(errors.New(text))
		if len(list) != 1 {
			t.Fatalf("%d findings", len(list))
		}
		r := &doctor.Report{Findings: list}
		if out := r.String(); !plain(out) || len(out) > 2000 {
			t.Errorf("%q", out)
		}
	})
}

// FuzzChain: whatever certificates a verifier refuses, they can be explained.
func FuzzChain(f *testing.F) {
	p := newPKI(f)
	for _, c := range []tls.Certificate{
		p.intermediate.leaf(f, p.full), p.other.leaf(f, []*authority{p.other, p.root}), (*authority)(nil).leaf(f, nil, names("*.a.example", "::1")),
	} {
		f.Add(slices.Concat(c.Certificate...))
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		certs, err := x509.ParseCertificates(der)
		if err != nil || len(certs) == 0 {
			return
		}
		for _, err := range []error{
			&tls.CertificateVerificationError{UnverifiedCertificates: certs, Err: x509.UnknownAuthorityError{Cert: certs[0]}},
			x509.CertificateInvalidError{Cert: certs[0], Reason: x509.IncompatibleUsage},
			x509.CertificateInvalidError{Cert: certs[0], Reason: x509.Expired},
			x509.HostnameError{Certificate: certs[0], Host: "host.example"},
		} {
			r := &doctor.Report{Findings: doctor.Explain(err)}
			if out := r.String(); !plain(out) || len(out) > 8000 {
				t.Errorf("%q", out)
			}
		}
	})
}
