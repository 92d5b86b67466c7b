// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/doctor"
)

// crossSigned is the root as the other one has signed it.
func crossSigned(t testing.TB, p *pki, changes ...change) *authority {
	return &authority{sign(t, p.other, p.root.key, append(changes, commonName("Test root"), func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid = true, true
	})...), p.root.key}
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
		want: []string{"error expired", "warning expires-soon"}, phrases: []string{`The intermediate "Old sub" ended`, "Serve the chain that the CA gives out today"},
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
		name: "CAs that outlive the leaf, if not by much",
		server: func(t testing.TB, p *pki) *tls.Config {
			const day = 24 * time.Hour
			p.root = newCA(t, "Old root", nil, validity(-9000*day, 400*day))
			sub := newCA(t, "Old sub", p.root, validity(-1000*day, 91*day))
			return with(sub.leaf(t, []*authority{sub}, validity(-time.Hour, 90*day)))
		},
	},
	{
		name: "CA that ends before the leaf", // and so is what has to be renewed
		server: func(t testing.TB, p *pki) *tls.Config {
			sub := newCA(t, "Old sub", p.root, validity(-48*time.Hour, time.Hour))
			return with(sub.leaf(t, []*authority{sub}))
		},
		want: []string{"warning expires-soon"}, phrases: []string{`The intermediate "Old sub" ends`},
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
		name: "root signed by another root too",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.intermediate.leaf(t, []*authority{p.intermediate, crossSigned(t, p)}))
		},
		want: []string{"note superfluous"}, phrases: []string{`another one of the CA "Test root", signed by "CN=Other root"`, "Leave it"},
	},
	{
		name: "root signed by another root, which alone is in the pool",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.intermediate.leaf(t, []*authority{p.intermediate, crossSigned(t, p)}))
		},
		options: func(_ testing.TB, p *pki) doctor.Options { return doctor.Options{Roots: pool(p.other)} },
	},
	{
		name: "two ways, of which one has ended",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(p.intermediate.leaf(t, []*authority{p.intermediate, crossSigned(t, p, validity(-48*time.Hour, -24*time.Hour))}))
		},
		want: []string{"warning expired"}, phrases: []string{"Clients that look for no other way", "Take it out"},
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
