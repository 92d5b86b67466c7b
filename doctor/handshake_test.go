// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
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
	address := serveConn(t, func(conn net.Conn) { _ = tls.Server(conn, config).Handshake() })
	r := examine(t, address, doctor.Options{Roots: pool(p.root)})
	check(t, r, []string{"warning closed"}, []string{"without a word"})
}

var refusals = []broken{
	{
		name: "no certificate for the name",
		server: func(t testing.TB, p *pki) *tls.Config {
			cert := p.intermediate.leaf(t, p.full, names("www.example.com"))
			return &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if hello.ServerName != "" {
					return nil, errors.New("unknown name")
				}
				return &cert, nil
			}}
		},
		want: []string{"error unknown-name"}, phrases: []string{`no certificate for "localhost" (alert "internal error")`, `"www.example.com"`},
	},
	{
		name: "no certificate for any name",
		server: func(testing.TB, *pki) *tls.Config {
			return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("unknown name") }}
		},
		want: []string{"error unknown-name"}, phrases: []string{"Asked for no name, it does not answer either", "or a default"},
	},
	{
		name: "no certificate, asked for an address",
		server: func(testing.TB, *pki) *tls.Config {
			return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}
		},
		options: func(testing.TB, *pki) doctor.Options { return doctor.Options{ServerName: "127.0.0.1"} },
		want:    []string{"error unknown-name"}, phrases: []string{"--servername NAME"},
	},
	{
		name: "unrecognized name",
		server: func(testing.TB, *pki) *tls.Config {
			return &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}
		},
		want: []string{"error unknown-name"}, phrases: []string{`alert "unrecognized name"`},
	},
	{
		name: "old version",
		server: func(t testing.TB, p *pki) *tls.Config {
			c := with(p.intermediate.leaf(t, p.full))
			c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return c
		},
		want: []string{"error protocol-version"}, phrases: []string{"nothing better than TLS 1.1", "TLS 1.2 and 1.3"},
	},
	{
		name: "no cipher suite in common",
		server: func(t testing.TB, p *pki) *tls.Config {
			c := with(p.intermediate.leaf(t, p.full))
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
			return c
		},
		want: []string{"error handshake-failure"}, phrases: []string{"Compare what both sides allow"},
	},
	{
		name: "no application protocol in common",
		server: func(t testing.TB, p *pki) *tls.Config {
			c := with(p.intermediate.leaf(t, p.full))
			c.NextProtos = []string{"h2"}
			return c
		},
		options: func(_ testing.TB, p *pki) doctor.Options {
			return doctor.Options{Roots: pool(p.root), NextProtos: []string{"imap"}}
		},
		want: []string{"error no-common-protocol"}, phrases: []string{"ALPN"},
	},
	{
		name: "an application protocol in common",
		server: func(t testing.TB, p *pki) *tls.Config {
			c := with(p.intermediate.leaf(t, p.full))
			c.NextProtos = []string{"h2"}
			return c
		},
		options: func(_ testing.TB, p *pki) doctor.Options {
			return doctor.Options{Roots: pool(p.root), NextProtos: []string{"h2", "http/1.1"}}
		},
	},
	{
		name: "another key",
		server: func(t testing.TB, p *pki) *tls.Config {
			c := with(p.intermediate.leaf(t, p.full))
			c.Certificates[0].PrivateKey = newKey(t)
			return c
		},
		want: []string{"error handshake-failure"}, phrases: []string{"of one pair"},
	},
}

func TestExamineRefusals(t *testing.T) {
	for _, b := range refusals {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			p := newPKI(t)
			options := doctor.Options{Roots: pool(p.root)}
			if b.options != nil {
				options = b.options(t, p)
			}
			errs := make(chan error, 2)
			r := examine(t, serve(t, b.server(t, p), errs), options)
			check(t, r, b.want, b.phrases)
			if err := <-errs; err != nil && !strings.Contains(err.Error(), "unknown name") {
				if f := doctor.Explain(err); f[0].Cause == doctor.Other {
					t.Errorf("the server's %v is explained by %+v", err, f)
				}
			}
		})
	}
}

// Servers that speak no TLS, or not for long.
var strangers = []struct {
	name    string
	handle  func(net.Conn)
	want    string
	phrases []string
}{
	{"plain HTTP", says("HTTP/1.1 400 Bad Request\r\n\r\n"), "error not-tls", []string{"plain HTTP", "HTTPS port"}},
	{"SMTP", says("220 mail.example ESMTP\r\n"), "error not-tls", []string{"SMTP or FTP", "STARTTLS"}},
	{"SSH", says("SSH-2.0-x\r\n"), "error not-tls", []string{"SSH"}},
	{"commands for a terminal", says("\x1b[2J\x1b[H"), "error not-tls", []string{`"\x1b[2J\x1b"`}},
	{"end", func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) }, "error closed", []string{"did not say why"}},
	{"reset", func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 1))
		_ = conn.(*net.TCPConn).SetLinger(0)
	}, "error closed", []string{"did not say why"}},
	{"alert protocol_version", says("\x15\x03\x01\x00\x02\x02\x46"), "error protocol-version", []string{"TLS 1.2 and 1.3"}},
	{"alert insufficient_security", says("\x15\x03\x01\x00\x02\x02\x47"), "error handshake-failure", []string{"stronger"}},
	{"alert unrecognized_name", says("\x15\x03\x03\x00\x02\x02\x70"), "error unknown-name", []string{`"unrecognized name"`}},
	{"alert that is not known", says("\x15\x03\x03\x00\x02\x02\xfa"), "error handshake-failure", []string{"alert"}},
}

func says(text string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = conn.Write([]byte(text))
		_, _ = conn.Read(make([]byte, 4096))
	}
}

func TestExamineStrangers(t *testing.T) {
	for _, s := range strangers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r := examine(t, serveConn(t, s.handle), doctor.Options{})
			check(t, r, []string{s.want}, s.phrases)
			if r.Reached != doctor.Connected || r.Chain == nil {
				t.Errorf("it came to %s, and the chain is %v", r.Reached, r.Chain)
			}
		})
	}
}

func TestExamineUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	hang := func(ctx context.Context, network, address string) (net.Conn, error) {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: network, Err: ctx.Err()}
	}
	for _, c := range []struct {
		name, address string
		options       doctor.Options
		phrase        string
	}{
		{"refused", l.Addr().String(), doctor.Options{}, "Nothing listens there"},
		{"no such host", "no-such-host.invalid", doctor.Options{}, `"no-such-host.invalid" was not found`},
		{"timeout", "192.0.2.1", doctor.Options{Dial: hang, Timeout: time.Millisecond}, "Nothing answers"},
		{"by its own dialer", "proxy.example", doctor.Options{Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("the proxy says\x1b no")
		}}, `the proxy says\x1b no`},
		{"no address", "\x1b[2J:70000", doctor.Options{}, "doctor: address"},
	} {
		r := doctor.Examine(t.Context(), c.address, c.options)
		if r.Reached != doctor.Nothing || len(r.Findings) != 1 || r.Findings[0].Cause != doctor.Unreachable || !r.Failed() {
			t.Errorf("%s: %+v", c.name, r)
		}
		if text := r.String(); !strings.Contains(text, c.phrase) || strings.Contains(text, "\x1b") {
			t.Errorf("%s:\n%s", c.name, text)
		}
	}
}

// TestExamineTimeout: the server takes the connection and is silent.
func TestExamineTimeout(t *testing.T) {
	t.Parallel()
	silent := func(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)); _, _ = conn.Read(make([]byte, 1)) }
	r := examine(t, serveConn(t, silent), doctor.Options{Timeout: 50 * time.Millisecond})
	check(t, r, []string{"error no-answer"}, []string{"does not answer the handshake"})

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r = doctor.Examine(ctx, serveConn(t, silent), doctor.Options{})
	if !r.Failed() {
		t.Errorf("canceled:\n%s", r)
	}
}
