// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A front stands before a CA and delays or fails what is asked of it.
type front struct {
	*localca.CA

	mu     sync.Mutex
	delay  time.Duration
	fault  error                         // of each call that begins
	answer func(chain [][]byte) [][]byte // what becomes of the CA's; nil: nothing
	asked  [][]string                    // the names of each call
	at     []time.Time                   // when each began
	now    int                           // how many go on
	most   int                           // of now
}

func newFront(t testing.TB, c localca.Config) *front {
	t.Helper()
	ca, err := localca.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return &front{CA: ca}
}

func (f *front) Issue(ctx context.Context, csr *x509.CertificateRequest, lifetime time.Duration) ([][]byte, error) {
	f.mu.Lock()
	f.asked, f.at = append(f.asked, namesOf(csr)), append(f.at, time.Now())
	f.now++
	f.most = max(f.most, f.now)
	delay, fault, answer := f.delay, f.fault, f.answer
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.now--
	}()
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fault != nil {
		return nil, fault
	}
	chain, err := f.CA.Issue(ctx, csr, lifetime)
	if err == nil && answer != nil {
		chain = answer(chain)
	}
	return chain, err
}

func (f *front) set(delay time.Duration, fault error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delay, f.fault = delay, fault
}

// calls is how often the CA was asked.
func (f *front) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asked)
}

// counts is how often it was asked, by the first DNS name.
func (f *front) counts() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := make(map[string]int)
	for _, names := range f.asked {
		n[names[0]]++
	}
	return n
}

func (f *front) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(f.Root())
	return pool
}

func namesOf(c any) []string {
	var all []string
	switch c := c.(type) {
	case *x509.CertificateRequest:
		all = append(all, c.DNSNames...)
		for _, ip := range c.IPAddresses {
			all = append(all, ip.String())
		}
		for _, u := range c.URIs {
			all = append(all, u.String())
		}
	case *x509.Certificate:
		return namesOf(&x509.CertificateRequest{DNSNames: c.DNSNames, IPAddresses: c.IPAddresses, URIs: c.URIs})
	}
	return all
}

// has fails unless a certificate has exactly the names.
func has(t testing.TB, cert *tls.Certificate, names ...string) {
	t.Helper()
	got := namesOf(cert.Leaf)
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("the certificate is for %q, want %q", got, names)
	}
}

// hello is that of a client which asks for a name.
func hello(name string) *tls.ClientHelloInfo { return &tls.ClientHelloInfo{ServerName: name} }

func mustGet(t testing.TB, s *ondemand.Source, name string) *tls.Certificate {
	t.Helper()
	cert, err := s.GetCertificate(hello(name))
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// fails fails unless asking for a name ends in an error that says all of it.
func fails(t testing.TB, s *ondemand.Source, name string, says ...string) error {
	t.Helper()
	cert, err := s.GetCertificate(hello(name))
	if err == nil || cert != nil {
		t.Fatalf("there is a certificate for %q, want none", name)
	}
	for _, text := range says {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %v; want %q", name, err, text)
		}
	}
	return err
}

// anything allows all names.
func anything(context.Context, string) error { return nil }

// handshake makes one over a pipe, both ways verified, and returns what each side saw.
func handshake(server, client *tls.Config) (*tls.ConnectionState, *tls.ConnectionState, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	server = server.Clone()
	server.SessionTicketsDisabled = true // nobody reads them
	srv, cli := tls.Server(a, server), tls.Client(b, client)
	failed := make(chan error, 1)
	go func() {
		err := srv.Handshake()
		if err != nil {
			a.Close()
		}
		failed <- err
	}()
	err := cli.Handshake()
	if err != nil {
		b.Close()
	}
	if err := errors.Join(err, <-failed); err != nil {
		return nil, nil, err
	}
	s, c := srv.ConnectionState(), cli.ConnectionState()
	return &s, &c, nil
}

// once fails unless each name was asked of the CA exactly n times.
func (f *front) once(t testing.TB, n int, names ...string) {
	t.Helper()
	want := make(map[string]int)
	for _, name := range names {
		want[name] = n
	}
	if got := f.counts(); !maps.Equal(got, want) {
		t.Errorf("issued %v, want %v", got, want)
	}
}

var errDown = errors.New("connection refused")

var _ issuer.Issuer = (*front)(nil)
