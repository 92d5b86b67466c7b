// SPDX-License-Identifier: Apache-2.0

package jetstream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/keyturn/keyturn/bus"
	"github.com/keyturn/keyturn/bus/jetstream"
)

// A ca signs the certificates of servers.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) *ca {
	t.Helper()
	c := new(ca)
	c.cert, c.key = certify(t, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return c
}

func certify(t *testing.T, template *x509.Certificate, by *ca) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.Subject = pkix.Name{CommonName: t.Name()}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if by == nil {
		by = &ca{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// server returns what a server of these names is configured with.
func (c *ca) server(t *testing.T, names ...string) *tls.Config {
	t.Helper()
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	cert, key := certify(t, template, c)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
}

// write makes a file of roots.
func (c *ca) write(t *testing.T, path string) {
	t.Helper()
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.cert.Raw})))
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
}

// listen starts a NATS server without JetStream and returns its port.
func listen(t *testing.T, o server.Options) int {
	t.Helper()
	o.Host, o.NoLog, o.NoSigs = "0.0.0.0", true, true
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("NATS does not start")
	}
	return s.Addr().(*net.TCPAddr).Port
}

// elsewhere is an address of this machine that is not loopback, as another
// machine would use it.
func elsewhere(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	t.Skip("this machine has no address but loopback; run: ip link add dummy0 type dummy && ip addr add 192.0.2.1/32 dev dummy0")
	return ""
}

// TestTLS: which connections are made, to whom, and which are not.
func TestTLS(t *testing.T) {
	far := elsewhere(t)
	dir := t.TempDir()
	ours, others := newCA(t), newCA(t)
	roots, wrongRoots, noRoots := filepath.Join(dir, "ours"), filepath.Join(dir, "others"), filepath.Join(dir, "none")
	ours.write(t, roots)
	others.write(t, wrongRoots)
	writeFile(t, noRoots, "no PEM\n")
	plain := listen(t, server.Options{})
	secure := listen(t, server.Options{TLS: true, TLSConfig: ours.server(t, far, "127.0.0.1", "localhost")})
	misnamed := listen(t, server.Options{TLS: true, TLSConfig: ours.server(t, "bus.example")})
	old := ours.server(t, far)
	old.MaxVersion = tls.VersionTLS12
	dated := listen(t, server.Options{TLS: true, TLSConfig: old})
	optional := listen(t, server.Options{TLS: true, AllowNonTLS: true, TLSConfig: ours.server(t, far, "127.0.0.1")})
	at := func(scheme, host string, port int) string { return fmt.Sprintf("%s://%s:%d", scheme, host, port) }
	for what, c := range map[string]struct {
		url, roots, err string
	}{
		"plain on loopback":                    {at("nats", "127.0.0.1", plain), "", ""},
		"plain on localhost":                   {at("nats", "localhost", plain), "", ""},
		"plain elsewhere":                      {at("nats", far, plain), "", "the server offers no TLS"},
		"plain elsewhere, roots given":         {at("nats", far, plain), roots, "the server offers no TLS"},
		"plain on loopback, TLS asked for":     {at("tls", "127.0.0.1", plain), "", "the server offers no TLS"},
		"TLS elsewhere":                        {at("tls", far, secure), roots, ""},
		"TLS elsewhere, scheme nats":           {at("nats", far, secure), roots, ""},
		"TLS on loopback, scheme nats":         {at("nats", "127.0.0.1", secure), roots, ""},
		"TLS on localhost":                     {at("tls", "localhost", secure), roots, ""},
		"TLS by other roots":                   {at("tls", far, secure), wrongRoots, "unknown authority"},
		"TLS by the system's roots":            {at("tls", far, secure), "", "unknown authority"},
		"TLS on loopback by the wrong roots":   {at("nats", "127.0.0.1", secure), wrongRoots, "unknown authority"},
		"TLS by a file without roots":          {at("tls", far, secure), noRoots, "holds no CA certificate"},
		"TLS by a file that is not there":      {at("tls", far, secure), filepath.Join(dir, "gone"), "no such file"},
		"TLS of another host":                  {at("tls", far, misnamed), roots, "certificate"},
		"TLS 1.2":                              {at("tls", far, dated), roots, "protocol version"},
		"TLS offered, elsewhere":               {at("nats", far, optional), roots, ""},
		"TLS offered, elsewhere, wrong roots":  {at("nats", far, optional), wrongRoots, "unknown authority"},
		"TLS offered, on loopback":             {at("nats", "127.0.0.1", optional), wrongRoots, ""},
		"the first of several does not answer": {at("nats", "127.0.0.1", 1) + "," + at("tls", far, secure), roots, ""},
		"plain and TLS, in one list":           {at("nats", far, plain) + ", " + at("tls", far, secure), roots, ""},
		"none of several will do":              {at("nats", far, plain) + "," + at("tls", far, dated), roots, "the server offers no TLS"},
	} {
		l := connect(t, jetstream.Options{URL: c.url, RootsFile: c.roots})
		err := l.Connected(t.Context())
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", what, err, c.err)
		}
		l.Close()
	}
}

// TestFilesAreReadAtEveryAttempt: the bus moves, and its CA is another, while a
// program runs.
func TestFilesAreReadAtEveryAttempt(t *testing.T) {
	far := elsewhere(t)
	dir := t.TempDir()
	first, second := newCA(t), newCA(t)
	at := func(port int) string { return fmt.Sprintf("tls://%s:%d\n", far, port) }
	port := listen(t, server.Options{TLS: true, TLSConfig: second.server(t, far)})
	first.write(t, filepath.Join(dir, bus.RootsFile))
	l := connect(t, jetstream.Options{URLFile: filepath.Join(dir, bus.URLFile), RootsFile: filepath.Join(dir, bus.RootsFile)})
	until := func(want string) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for err := l.Check(); err != nil || want != ""; err = l.Check() {
			if err != nil && want != "" && strings.Contains(err.Error(), want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v, want %q", err, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	until("no bus runs here")
	writeFile(t, filepath.Join(dir, bus.URLFile), "http://bus.example\n")
	until("is not a URL")
	writeFile(t, filepath.Join(dir, bus.URLFile), at(port))
	until("unknown authority")
	second.write(t, filepath.Join(dir, bus.RootsFile))
	until("")
}

// TestAServerThatTalksOn in the clear, where TLS begins, may put words into
// another's mouth.
func TestAServerThatTalksOn(t *testing.T) {
	for what, c := range map[string]struct{ greeting, err string }{
		"more than a greeting": {"INFO {\"tls_required\":true}\r\n+OK\r\n", "went on talking in the clear"},
		"no greeting":          {"HTTP/1.1 400 Bad Request\r\n", "does not greet like a NATS server"},
		"no JSON":              {"INFO {\r\n", "greeting"},
		"an endless greeting":  {"INFO " + strings.Repeat("x", 1<<17), "greeting"},
		"nothing":              {"", "greeting"},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for {
				c2, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c2.Write([]byte(c.greeting)) // the client may have seen enough
				if c.greeting == "" {
					_ = c2.Close()
				}
				t.Cleanup(func() { _ = c2.Close() })
			}
		}()
		b := connect(t, jetstream.Options{URL: "tls://" + l.Addr().String()})
		if err := b.Connected(t.Context()); err == nil || !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, want %q", what, err, c.err)
		}
		b.Close()
		_ = l.Close()
	}
}

// TestDriver: what bus.OpenDir makes of a directory.
func TestDriver(t *testing.T) {
	d, err := bus.DriverOf("tls://bus.example:4222")
	if err != nil {
		t.Fatal(err)
	}
	secret := make([]byte, 32)
	user, err := d.User(secret)
	if err != nil || !strings.HasPrefix(user, "U") {
		t.Fatal(user, err)
	}
	if _, err := d.User(secret[1:]); err == nil {
		t.Error("a secret that is too short made a user")
	}
	mint := newMint(t)
	grant, err := mint.Replica("default", "web", "AAAAAAAAAAE", user)
	if err != nil {
		t.Fatal(err)
	}
	text, err := d.Credentials(grant, secret)
	if err != nil || !strings.Contains(string(text), grant) {
		t.Fatal(err)
	}
	if _, err := d.Credentials(grant, append([]byte{1}, secret[1:]...)); err == nil || !strings.Contains(err.Error(), user) {
		t.Errorf("credentials of another user's grant: %v", err)
	}
	if _, err := d.Credentials("junk", secret); err == nil {
		t.Error("credentials of junk")
	}

	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, bus.URLFile), "nats://127.0.0.1:1\n")
	if _, err := bus.OpenDir(dir, bus.Options{}); err == nil {
		t.Error("opened without credentials")
	}
	writeFile(t, filepath.Join(dir, bus.ReplicaCreds), string(text))
	o := bus.Options{Logger: slog.New(slog.DiscardHandler)}
	c, err := bus.OpenDir(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := c.Connected(ctx); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nothing listens, and Connected says %v", err)
	}
	writeFile(t, filepath.Join(dir, bus.URLFile), "nats://\n")
	if _, err := bus.OpenDir(dir, o); err == nil {
		t.Error("opened what is no URL")
	}
}
