// SPDX-License-Identifier: Apache-2.0

package tlsalpn01_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/solver"
	"github.com/keyturn/keyturn/solver/tlsalpn01"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestServerName(t *testing.T) {
	for name, want := range map[string]string{
		"www.example.com":  "www.example.com",
		"WWW.Example.com.": "www.example.com",
		"192.0.2.1":        "1.2.0.192.in-addr.arpa",
		"::ffff:192.0.2.1": "1.2.0.192.in-addr.arpa",
		"2001:db8::1":      "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", // RFC 3596 section 2.5
	} {
		if got := tlsalpn01.ServerName(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestCertificate looks at what RFC 8737 section 3 and RFC 8738 section 6 ask for.
func TestCertificate(t *testing.T) {
	for _, name := range []string{"www.example.com", "192.0.2.1", "2001:db8::1"} {
		cert, err := tlsalpn01.Certificate(name, "token.thumbprint")
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		checkAnswer(t, leaf, name, "token.thumbprint")
		if err := leaf.CheckSignature(leaf.SignatureAlgorithm, leaf.RawTBSCertificate, leaf.Signature); err != nil {
			t.Errorf("%s: not signed by itself: %v", name, err)
		}
	}
	if _, err := tlsalpn01.Certificate("bücher.example", "token.thumbprint"); err == nil {
		t.Error("a certificate for a name that none can have")
	}
}

// checkAnswer looks at a certificate as a CA does.
func checkAnswer(t *testing.T, leaf *x509.Certificate, name, authorization string) {
	t.Helper()
	if ip := net.ParseIP(name); ip != nil {
		if len(leaf.DNSNames) != 0 || len(leaf.IPAddresses) != 1 || !leaf.IPAddresses[0].Equal(ip) {
			t.Errorf("%s: the names are %v %v", name, leaf.DNSNames, leaf.IPAddresses)
		}
	} else if len(leaf.IPAddresses) != 0 || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != name {
		t.Errorf("%s: the names are %v %v", name, leaf.DNSNames, leaf.IPAddresses)
	}
	for _, e := range leaf.Extensions {
		if e.Id.String() != "1.3.6.1.5.5.7.1.31" {
			continue
		}
		var got []byte
		rest, err := asn1.Unmarshal(e.Value, &got)
		want := sha256.Sum256([]byte(authorization))
		if err != nil || len(rest) > 0 || !e.Critical || string(got) != string(want[:]) {
			t.Errorf("%s: acmeIdentifier %x, critical %v, %v", name, e.Value, e.Critical, err)
		}
		return
	}
	t.Errorf("%s: there is no acmeIdentifier", name)
}

func challenge(name, order string) solver.Challenge {
	token := strings.Repeat("t", 30) + order
	return solver.Challenge{Type: solver.TLSALPN01, Name: name, Token: token, KeyAuthorization: token + ".thumbprint"}
}

// look connects as a CA does.
func look(t *testing.T, addr, serverName string, version uint16, protocols ...string) (*tls.ConnectionState, error) {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{ServerName: serverName, NextProtos: protocols, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: version}}
	conn, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err == nil {
		if n, _ := conn.Read(make([]byte, 1)); n > 0 {
			t.Errorf("%s: the server says something", serverName)
		}
	}
	return &state, nil
}

// freeAddr is an address that nobody listens on just now.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestServer(t *testing.T) {
	s := &tlsalpn01.Server{Addr: freeAddr(t)}
	for range 2 { // the port is free in between
		if _, err := net.Dial("tcp", s.Addr); err == nil {
			t.Fatal("somebody listens without a challenge")
		}
		one, two := challenge("www.example.com", "1"), challenge("192.0.2.1", "2")
		doneOne, err := s.Solve(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		doneTwo, err := s.Solve(t.Context(), two)
		if err != nil {
			t.Fatal(err)
		}
		doneAgain, err := s.Solve(t.Context(), one)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Solve(t.Context(), challenge("www.example.com", "3")); err == nil || !strings.Contains(err.Error(), "another order's") {
			t.Error("a second answer for one name: ", err)
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			for _, c := range []solver.Challenge{one, two} {
				state, err := look(t, s.Addr, tlsalpn01.ServerName(c.Name), version, tlsalpn01.Protocol)
				if err != nil || state.NegotiatedProtocol != tlsalpn01.Protocol {
					t.Fatal(c.Name, version, err, state)
				}
				checkAnswer(t, state.PeerCertificates[0], c.Name, c.KeyAuthorization)
			}
		}
		for what, try := range map[string]func() error{
			"an unknown name":    func() error { _, err := look(t, s.Addr, "other.example.com", 0, tlsalpn01.Protocol); return err },
			"no server name":     func() error { _, err := look(t, s.Addr, "", 0, tlsalpn01.Protocol); return err },
			"no protocol":        func() error { _, err := look(t, s.Addr, "www.example.com", 0); return err },
			"another protocol":   func() error { _, err := look(t, s.Addr, "www.example.com", 0, "h2"); return err },
			"a protocol besides": func() error { _, err := look(t, s.Addr, "www.example.com", 0, tlsalpn01.Protocol, "h2"); return err },
		} {
			if try() == nil {
				t.Errorf("answered with %s", what)
			}
		}
		for _, done := range []func() error{
			func() error { return doneOne(t.Context()) },
			func() error { return doneOne(t.Context()) }, // counts once
		} {
			if err := done(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := look(t, s.Addr, "www.example.com", 0, tlsalpn01.Protocol); err != nil {
			t.Error("it is needed still: ", err)
		}
		if err := errors.Join(doneAgain(t.Context()), doneTwo(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerWithoutItsPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &tlsalpn01.Server{Addr: l.Addr().String()}
	if _, err := s.Solve(t.Context(), challenge("www.example.com", "1")); err == nil || !strings.Contains(err.Error(), "another program serves there") {
		t.Error(err)
	}
	other := challenge("www.example.com", "1")
	other.Type = solver.HTTP01
	if _, err := s.Solve(t.Context(), other); err == nil {
		t.Error("an http-01 challenge")
	}
}
