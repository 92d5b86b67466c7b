// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

// An authority signs what tests need; its chain has an intermediate, so that a chain can
// be cut short.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	up   []byte // PEM of the certificates above a leaf, without the root
}

var serials atomic.Int64

func newCA(t testing.TB, name string, parent *authority, options ...func(*x509.Certificate)) *authority {
	t.Helper()
	template := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{}
	a.cert, a.key = create(t, template, parent, options)
	if parent != nil {
		a.up = append(certPEM(a.cert), parent.up...)
	}
	return a
}

// leaf returns a pair for a.test: its serial number, its chain and its key.
func (a *authority) leaf(t testing.TB, options ...func(*x509.Certificate)) (serial int64, chain, key []byte) {
	t.Helper()
	cert, private := create(t, &x509.Certificate{DNSNames: []string{"a.test"}}, a, options)
	return cert.SerialNumber.Int64(), append(certPEM(cert), a.up...), keyPEM(t, private)
}

func create(t testing.TB, template *x509.Certificate, parent *authority, options []func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(serials.Add(1))
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	for _, option := range options {
		option(template)
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func keyPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	must(t, os.WriteFile(path, data, 0o600))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A journal is the lines that were logged.
type journal chan string

func newJournal() journal { return make(journal, 1000) }

func (j journal) Write(line []byte) (int, error) {
	j <- string(line)
	return len(line), nil
}

func (j journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// wait returns the next line with text in it.
func (j journal) wait(t testing.TB, text string) string {
	t.Helper()
	for {
		if line := receive(t, j); strings.Contains(line, text) {
			return line
		}
	}
}

// receive fails the test rather than waiting for what does not come.
func receive[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing came for a minute")
		panic("unreachable")
	}
}

// drain returns the lines up to now.
func (j journal) drain() (lines []string) {
	for {
		select {
		case line := <-j:
			lines = append(lines, line)
		default:
			return lines
		}
	}
}

// called is for watching by call alone: no polling, no directories.
func called(t testing.TB, o Options, sources ...Source) *Watcher {
	t.Helper()
	w, err := watchCalled(o, sources...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func watchCalled(o Options, sources ...Source) (*Watcher, error) {
	o.Interval = -1
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return watch(o, noNotifier, sources)
}

func noNotifier(chan<- struct{}) (notifier, error) { return nil, nil }

// served returns the serial number under an id, 0 if there is none.
func served(store *keyturn.Store, id string) int64 {
	cert, ok := store.Get(id)
	if !ok {
		return 0
	}
	return cert.Leaf.SerialNumber.Int64()
}

func serve(t testing.TB, store *keyturn.Store, id string, want int64) {
	t.Helper()
	if got := served(store, id); got != want {
		t.Errorf("%s has serial number %d, want %d", id, got, want)
	}
}

// refuses fails unless err has all the texts.
func refuses(t testing.TB, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q, want one with %q", err, text)
		}
	}
}
