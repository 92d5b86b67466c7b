// SPDX-License-Identifier: Apache-2.0

// Package exampletest is what the tests of the examples have in common: a CA, the files
// that an example reads, and an example that runs in the process of its test.
package exampletest

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A CA issues certificates.
type CA struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var serial atomic.Int64

// NewCA makes a CA.
func NewCA(t *testing.T) *CA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(serial.Add(1)),
		Subject:               pkix.Name{CommonName: "CA of a test"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		SubjectKeyId:          big.NewInt(serial.Load()).Bytes(),
	}
	return &CA{sign(t, template, template, key, key), key}
}

// Pool returns a pool of the CA.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// Issue returns a certificate of an hour for localhost and 127.0.0.1, and its serial
// number.
func (ca *CA) Issue(t *testing.T) (cert tls.Certificate, number string) {
	t.Helper()
	return ca.IssueUntil(t, time.Now().Add(time.Hour))
}

// IssueUntil is Issue of a certificate that expires at the time.
func (ca *CA) IssueUntil(t *testing.T, notAfter time.Time) (cert tls.Certificate, number string) {
	t.Helper()
	key := newKey(t)
	leaf := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)),
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, ca.Cert, key, ca.key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}, leaf.SerialNumber.String()
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// A Pair is the files of a certificate and of its key.
type Pair struct{ Cert, Key string }

// NewPair names the files of a pair in a new directory.
func NewPair(t *testing.T) Pair {
	t.Helper()
	dir := t.TempDir()
	return Pair{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
}

// Write puts the files of cert in the place of those before, as cron would.
func (p Pair) Write(t *testing.T, cert tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	Replace(t, p.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	Replace(t, p.Cert, certificate(cert.Certificate[0]))
}

// NewCAs writes the certificates of CAs to a new file.
func NewCAs(t *testing.T, cas ...*CA) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "ca.pem")
	WriteCAs(t, file, cas...)
	return file
}

// WriteCAs replaces a file by one with the certificates of CAs.
func WriteCAs(t *testing.T, file string, cas ...*CA) {
	t.Helper()
	var content []byte
	for _, ca := range cas {
		content = append(content, certificate(ca.Cert.Raw)...)
	}
	Replace(t, file, content)
}

// Replace replaces a file, so that nobody sees half of it.
func Replace(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

func certificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// A Program is an example that runs.
type Program struct {
	t     *testing.T
	lines chan string
}

// Start runs an example until the test ends, when it is to return nil.
func Start(t *testing.T, run func(ctx context.Context, args []string, out io.Writer) error, args ...string) *Program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	in, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, args, out)
		out.Close()
		ended <- err
	}()
	p := Read(t, in)
	t.Cleanup(func() {
		cancel()
		p.End()
		if err := <-ended; err != nil {
			t.Errorf("%q ended: %v", args, err)
		}
	})
	return p
}

// Read returns a program that writes to in, and waits for the test to read.
func Read(t *testing.T, in io.Reader) *Program {
	p := &Program{t, make(chan string)}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	return p
}

// Lines returns what the program writes, line by line. It waits for them to be read.
func (p *Program) Lines() <-chan string { return p.lines }

// Line returns the next line of the program's output.
func (p *Program) Line() string {
	p.t.Helper()
	line, ok := <-p.lines
	if !ok {
		p.t.Fatal("the program has ended")
	}
	return line
}

// After returns the rest of the next line with what is before it.
func (p *Program) After(before string) string {
	p.t.Helper()
	for {
		if _, rest, ok := strings.Cut(p.Line(), before); ok {
			return rest
		}
	}
}

// End reads what the program still writes, until it closes its output.
func (p *Program) End() {
	for range p.lines {
	}
}
