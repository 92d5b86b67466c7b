// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/keyturn/keyturn/doctor"
)

// asking makes a good server that wants client certificates of the root.
func asking(auth tls.ClientAuthType, changes ...func(*tls.Config)) func(testing.TB, *pki) *tls.Config {
	return func(t testing.TB, p *pki) *tls.Config {
		config := with(p.intermediate.leaf(t, p.full))
		config.ClientAuth, config.ClientCAs = auth, pool(p.root)
		for _, change := range changes {
			change(config)
		}
		return config
	}
}

// showing gives the doctor a client certificate.
func showing(by func(*pki) *authority, changes ...change) func(testing.TB, *pki) doctor.Options {
	return func(t testing.TB, p *pki) doctor.Options {
		cert := by(p).leaf(t, nil, append([]change{usage(x509.ExtKeyUsageClientAuth), commonName("me")}, changes...)...)
		return doctor.Options{Roots: pool(p.root), Certificate: &cert}
	}
}

func root(p *pki) *authority  { return p.root }
func other(p *pki) *authority { return p.other }

// nameless lets the server not say which CAs it knows.
func nameless(c *tls.Config) {
	cas := c.ClientCAs
	c.ClientAuth, c.ClientCAs = tls.RequireAnyClientCert, nil
	c.VerifyPeerCertificate = func(raw [][]byte, _ [][]*x509.Certificate) error {
		cert, err := x509.ParseCertificate(raw[0])
		if err != nil {
			return err
		}
		_, err = cert.Verify(x509.VerifyOptions{Roots: cas, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err
	}
}

var clients = []broken{
	{
		name: "none", server: asking(tls.RequireAndVerifyClientCert),
		want: []string{"error no-client-certificate"}, phrases: []string{"none was given", `It wants one of "CN=Test root"`, "--cert FILE --key FILE"},
	},
	{
		name: "none, and none is needed", server: asking(tls.VerifyClientCertIfGiven),
		want: []string{"note no-client-certificate"}, phrases: []string{"accepts that there is none", "400"},
	},
	{name: "good", server: asking(tls.RequireAndVerifyClientCert), options: showing(root)},
	{
		name: "not asked for", server: asking(tls.NoClientCert), options: showing(root),
		want: []string{"note client-certificate-unused"},
	},
	{
		name: "expired and not asked for", server: asking(tls.NoClientCert), options: showing(root, validity(-2*time.Hour, -time.Hour)),
		want: []string{"warning expired", "note client-certificate-unused"},
	},
	{
		name: "wrong pool", server: asking(tls.RequireAndVerifyClientCert), options: showing(other),
		want: []string{"error wrong-pool"}, phrases: []string{`the client certificate "me": its pool lacks the CA "CN=Other root"`, `It wants one of "CN=Test root"`, "Add that CA to the server's pool"},
	},
	{
		name: "accepted, and its CA is not named", server: asking(tls.RequireAnyClientCert), options: showing(other),
		want: []string{"warning wrong-pool"}, phrases: []string{"does not name its CA"},
	},
	{
		name: "refused without a reason", server: asking(tls.RequireAnyClientCert, nameless), options: showing(other),
		want: []string{"error certificate-refused"}, phrases: []string{`signed by "CN=Other root"`, "server's log"},
	},
	{
		name: "expired", server: asking(tls.RequireAndVerifyClientCert), options: showing(root, validity(-2*time.Hour, -time.Hour)),
		want: []string{"error expired"}, phrases: []string{`The client certificate "me" ended`},
	},
	{
		name: "not yet valid", server: asking(tls.RequireAndVerifyClientCert), options: showing(root, validity(time.Hour, 2*time.Hour)),
		want: []string{"error not-yet-valid"}, phrases: []string{`The client certificate "me" begins`},
	},
	{
		name: "expired by the server's clock", options: showing(root),
		server: asking(tls.RequireAndVerifyClientCert, func(c *tls.Config) { c.Time = func() time.Time { return time.Now().Add(48 * time.Hour) } }),
		want:   []string{"error expired"}, phrases: []string{"set the peer's clock", `the client certificate "me"`},
	},
	{
		name: "for servers", server: asking(tls.RequireAndVerifyClientCert), options: showing(root, usage(x509.ExtKeyUsageServerAuth)),
		want: []string{"error missing-eku"}, phrases: []string{`"me" may be used for serverAuth only, and not for clientAuth`},
	},
	{
		name: "both sides are wrong", options: showing(other),
		server: asking(tls.RequireAndVerifyClientCert, func(c *tls.Config) { c.Certificates[0].Certificate = c.Certificates[0].Certificate[:1] }),
		want:   []string{"error unknown-authority", "error wrong-pool"},
	},
}

func TestExamineClientCertificates(t *testing.T) {
	for _, b := range clients {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(b.name+"/"+tls.VersionName(version), func(t *testing.T) {
				t.Parallel()
				p := newPKI(t)
				config := b.server(t, p)
				config.MaxVersion = version
				options := doctor.Options{Roots: pool(p.root)}
				if b.options != nil {
					options = b.options(t, p)
				}
				errs := make(chan error, 2)
				r := examine(t, serve(t, config, errs), options)
				check(t, r, b.want, b.phrases)
				if asked := config.ClientAuth != tls.NoClientCert; r.ClientCertificateRequested != asked || r.ClientCertificateSent != (asked && options.Certificate != nil) {
					t.Errorf("requested %v, sent %v", r.ClientCertificateRequested, r.ClientCertificateSent)
				}
				if len(r.Chain) < 2 && b.name != "both sides are wrong" {
					t.Errorf("the chain is not there: %v", r.Chain)
				}
				// What the server found, explained on its side.
				if err := <-errs; err != nil {
					f := doctor.Explain(err)
					if f[0].Cause == doctor.Other || f[0].Severity != doctor.Error {
						t.Errorf("%v is explained by %+v", err, f)
					}
				}
			})
		}
	}
}

// TestExamineSilence: a server that accepts the client waits for it to speak.
func TestExamineSilence(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	config := asking(tls.RequireAndVerifyClientCert)(t, p)
	address := serveConn(t, func(conn net.Conn) {
		c := tls.Server(conn, config)
		_, _ = c.Read(make([]byte, 1)) // handshakes first
	})
	check(t, examine(t, address, showing(root)(t, p)), nil, nil)
}

// TestExamineEnd: a server that says no without an alert.
func TestExamineEnd(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	config := asking(tls.RequestClientCert)(t, p)
	for _, end := range []func(net.Conn){
		func(net.Conn) {},
		func(conn net.Conn) { _ = conn.(*net.TCPConn).SetLinger(0) }, // a reset
	} {
		address := serveConn(t, func(conn net.Conn) { _ = tls.Server(conn, config).Handshake(); end(conn) })
		r := examine(t, address, doctor.Options{Roots: pool(p.root)})
		check(t, r, []string{"warning closed"}, []string{"without a word"})
	}
}
