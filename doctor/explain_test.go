// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/doctor"
)

// TestExplain takes the errors of both sides of real failed handshakes.
func TestExplain(t *testing.T) {
	p := newPKI(t)
	good := func(changes ...change) *tls.Config { return with(p.intermediate.leaf(t, p.full, changes...)) }
	wanting := func() *tls.Config {
		c := good()
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, pool(p.root)
		return c
	}
	client := func(change func(*tls.Config)) *tls.Config {
		c := &tls.Config{RootCAs: pool(p.root), ServerName: "localhost"}
		if change != nil {
			change(c)
		}
		return c
	}
	shows := func(by *authority, changes ...change) func(*tls.Config) {
		cert := by.leaf(t, nil, append([]change{usage(x509.ExtKeyUsageClientAuth)}, changes...)...)
		return func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		}
	}
	var store keyturn.Store
	var none, named, knows keyturn.Trust
	none.SetClientAuth(tls.RequireAndVerifyClientCert)
	named.SetClientAuth(tls.RequireAndVerifyClientCert)
	named.SetClientCAs(pool(p.root))
	if err := named.SetPeerNames("www.example.com"); err != nil {
		t.Fatal(err)
	}
	knows.SetRootCAs(pool(p.other))
	old := newCA(t, "Old sub", p.root, validity(-48*time.Hour, -24*time.Hour))
	for _, c := range []struct {
		name            string
		server, client  *tls.Config
		atServer, there doctor.Cause // what the server, and the client, have to make of it
	}{
		{"unknown authority", good(), client(func(c *tls.Config) { c.RootCAs = pool(p.other) }), doctor.CertificateRefused, doctor.UnknownAuthority},
		{"incomplete", with(newCA(t, "An intermediate", p.root).leaf(t, nil)), client(nil), doctor.CertificateRefused, doctor.IncompleteChain},
		{"expired", good(validity(-2*time.Hour, -time.Hour)), client(nil), doctor.CertificateRefused, doctor.Expired},
		{"expired intermediate", with(old.leaf(t, []*authority{old})), client(nil), doctor.CertificateRefused, doctor.Expired},
		{"not yet valid", good(validity(time.Hour, 2*time.Hour)), client(nil), doctor.CertificateRefused, doctor.NotYetValid},
		{"not yet valid by another clock", good(), client(func(c *tls.Config) { c.Time = func() time.Time { return time.Now().Add(-2 * time.Hour) } }), doctor.CertificateRefused, doctor.NotYetValid},
		{"expired by another clock", good(), client(func(c *tls.Config) { c.Time = func() time.Time { return time.Now().Add(48 * time.Hour) } }), doctor.CertificateRefused, doctor.Expired},
		{"name", good(names("www.example.com")), client(nil), doctor.CertificateRefused, doctor.NameMismatch},
		{"usage", good(usage(x509.ExtKeyUsageClientAuth)), client(nil), doctor.CertificateRefused, doctor.MissingEKU},
		{"unknown name", store.ServerConfig(), client(nil), doctor.UnknownName, doctor.UnknownName},
		{"no certificates", &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }}, client(nil), doctor.UnknownName, doctor.UnknownName},
		{"no client certificate", wanting(), client(nil), doctor.NoClientCertificate, doctor.NoClientCertificate},
		{"wrong pool", wanting(), client(shows(p.other)), doctor.UnknownAuthority, doctor.WrongPool},
		{"expired client", wanting(), client(shows(p.root, validity(-2*time.Hour, -time.Hour))), doctor.Expired, doctor.Expired},
		{"usage of the client", wanting(), client(shows(p.root, usage(x509.ExtKeyUsageServerAuth))), doctor.MissingEKU, doctor.CertificateRefused},
		{"versions", &tls.Config{MinVersion: tls.VersionTLS13, Certificates: good().Certificates}, client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), doctor.ProtocolVersion, doctor.ProtocolVersion},
		{"protocols", &tls.Config{NextProtos: []string{"h2"}, Certificates: good().Certificates}, client(func(c *tls.Config) { c.NextProtos = []string{"imap"} }), doctor.NoCommonProtocol, doctor.NoCommonProtocol},
		// What keyturn.Trust adds.
		{"no client CAs", none.ServerConfig(good()), client(nil), doctor.WrongPool, doctor.UnknownName},
		{"not an accepted client", named.ServerConfig(good()), client(shows(p.root)), doctor.AccessDenied, doctor.CertificateRefused},
		{"wrong roots", good(), knows.ClientConfig("localhost"), doctor.CertificateRefused, doctor.UnknownAuthority},
	} {
		t.Run(c.name, func(t *testing.T) {
			errs := make(chan error, 1)
			conn, err := tls.Dial("tcp", serve(t, c.server, errs), c.client)
			if err == nil {
				// TLS 1.3 refuses a client late.
				_, err = conn.Read(make([]byte, 1))
				conn.Close()
			}
			explained(t, err, c.there)
			explained(t, fmt.Errorf("dialing: %w", err), c.there)
			err = <-errs
			explained(t, err, c.atServer)
			// Only the text is left in a log, so that less can be said.
			line := errors.New("http: TLS handshake error from 127.0.0.1:4711: " + err.Error() + "\n")
			if f := doctor.Explain(line); f[0].Cause == doctor.Other {
				t.Errorf("%v is explained by %+v", line, f)
			}
		})
	}
}

func explained(t *testing.T, err error, cause doctor.Cause) {
	t.Helper()
	list := doctor.Explain(err)
	if len(list) == 0 || list[0].Cause != cause || list[0].Severity != doctor.Error || list[0].Detail == "" || list[0].Remedy == "" {
		t.Errorf("%v is explained by %+v, want %s", err, list, cause)
	}
}

// TestExplainHTTP: net/http has words of its own for TLS that is none.
func TestExplainHTTP(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	client := server.Client()
	_, err := client.Get(strings.Replace(server.URL, "http", "https", 1))
	explained(t, err, doctor.NotTLS)

	lines := make(chan string, 1)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(writer(lines), "", 0)
	secure.StartTLS()
	defer secure.Close()
	if answer, err := client.Get(strings.Replace(secure.URL, "https", "http", 1)); err == nil {
		answer.Body.Close()
	}
	explained(t, errors.New(<-lines), doctor.NotTLS)
}

type writer chan<- string

func (w writer) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestExplainOther(t *testing.T) {
	if list := doctor.Explain(nil); list != nil {
		t.Errorf("nil is explained by %+v", list)
	}
	for _, c := range []struct {
		err  error
		want doctor.Cause
	}{
		{errors.New("out of \x1b[31mcheese"), doctor.Other},
		{context.Canceled, doctor.Other},
		{io.EOF, doctor.Closed},
		{io.ErrUnexpectedEOF, doctor.Closed},
		{context.DeadlineExceeded, doctor.NoAnswer},
		{tls.AlertError(116), doctor.NoClientCertificate}, // QUIC has a type for them
		{tls.AlertError(48), doctor.WrongPool},
		{tls.RecordHeaderError{}, doctor.NotTLS},
		{x509.SystemRootsError{}, doctor.UnknownAuthority},
		{x509.InsecureAlgorithmError(x509.SHA1WithRSA), doctor.WeakSignature},
		{x509.UnhandledCriticalExtension{}, doctor.InvalidCertificate},
		// As no verifier makes them, but somebody could.
		{x509.HostnameError{Certificate: new(x509.Certificate), Host: "h"}, doctor.NameMismatch},
		{x509.CertificateInvalidError{Cert: new(x509.Certificate), Reason: x509.Expired}, doctor.Expired},
		{x509.CertificateInvalidError{Cert: new(x509.Certificate), Reason: 99}, doctor.InvalidCertificate},
		{x509.CertificateInvalidError{Reason: x509.Expired}, doctor.Other},
		{x509.UnknownAuthorityError{}, doctor.UnknownAuthority},
		{x509.UnknownAuthorityError{Cert: new(x509.Certificate)}, doctor.UnknownAuthority},
		{&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}, doctor.UnknownAuthority},
	} {
		list := doctor.Explain(c.err)
		if len(list) != 1 || list[0].Cause != c.want || strings.Contains(list[0].Detail, "\x1b") {
			t.Errorf("%v is explained by %+v, want %s", c.err, list, c.want)
		}
	}
}
