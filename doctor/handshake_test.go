// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/doctor"
)

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
		name: "a certificate for the name, which is not given out for it",
		server: func(t testing.TB, p *pki) *tls.Config {
			cert := p.intermediate.leaf(t, p.full)
			return &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if hello.ServerName != "" {
					return nil, errors.New("unknown name")
				}
				return &cert, nil
			}}
		},
		want: []string{"error unknown-name"}, phrases: []string{"Its log has the reason"},
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
		name: "certificate that Go cannot read",
		server: func(t testing.TB, p *pki) *tls.Config {
			return with(rewritten(t, p.root, p.root.leaf(t, nil), 1, "\x02\x02\x81\x05"))
		},
		want: []string{"error invalid-certificate"}, phrases: []string{"negative serial number"},
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
	{"alert handshake_failure", says("\x15\x03\x03\x00\x02\x02\x28"), "error handshake-failure", []string{"no certificate for the name", "ask for a name"}},
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

// TestExamineAddress: some servers say handshake_failure to who asks for no name.
func TestExamineAddress(t *testing.T) {
	t.Parallel()
	r := doctor.Examine(t.Context(), serveConn(t, says("\x15\x03\x03\x00\x02\x02\x28")), doctor.Options{})
	check(t, r, []string{"error handshake-failure"}, []string{"No server name was sent", "--servername NAME"})
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
