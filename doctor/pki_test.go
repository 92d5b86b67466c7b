// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/doctor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An authority signs certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// A change is made to a template before it is signed.
type change func(*x509.Certificate)

var serials atomic.Int64

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// RSA keys take long to make, so there is one for each size.
var rsaKeys = map[int]func() (*rsa.PrivateKey, error){
	1024: sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 1024) }),
	2048: sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) }),
}

func rsaKey(t testing.TB, bits int) crypto.Signer {
	t.Helper()
	key, err := rsaKeys[bits]()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate; without a parent it signs itself.
func sign(t testing.TB, parent *authority, key crypto.Signer, changes ...change) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	for _, change := range changes {
		change(template)
	}
	signer, issuer := key, template
	if parent != nil {
		signer, issuer = parent.key, parent.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newCA(t testing.TB, name string, parent *authority, changes ...change) *authority {
	t.Helper()
	key := newKey(t)
	return &authority{sign(t, parent, key, append([]change{func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid = name, true, true
		c.KeyUsage = x509.KeyUsageCertSign
	}}, changes...)...), key}
}

// leaf makes a certificate for localhost and 127.0.0.1, for servers, and its chain as
// it is to be sent.
func (a *authority) leaf(t testing.TB, chain []*authority, changes ...change) tls.Certificate {
	t.Helper()
	return a.leafFor(t, newKey(t), chain, changes...)
}

func (a *authority) leafFor(t testing.TB, key crypto.Signer, chain []*authority, changes ...change) tls.Certificate {
	t.Helper()
	leaf := sign(t, a, key, append([]change{
		names("localhost"),
		usage(x509.ExtKeyUsageServerAuth),
	}, changes...)...)
	cert := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	for _, ca := range chain {
		cert.Certificate = append(cert.Certificate, ca.cert.Raw)
	}
	return cert
}

func pool(cas ...*authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, ca := range cas {
		p.AddCert(ca.cert)
	}
	return p
}

func names(names ...string) change {
	return func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = nil, nil
		for _, n := range names {
			if ip := net.ParseIP(n); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, n)
			}
		}
	}
}

func commonName(name string) change {
	return func(c *x509.Certificate) { c.Subject.CommonName = name }
}

func organization(name string) change {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: c.Subject.CommonName, Organization: []string{name}}
	}
}

func usage(usages ...x509.ExtKeyUsage) change {
	return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
}

func validity(from, to time.Duration) change {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
}

// serve runs a server until the test ends and returns its address. Its handshakes'
// errors go to errs, if that is not nil; after a handshake it says a word.
func serve(t testing.TB, config *tls.Config, errs chan<- error) string {
	t.Helper()
	return serveConn(t, func(conn net.Conn) {
		c := tls.Server(conn, config)
		err := c.Handshake()
		if errs != nil {
			errs <- err
		}
		if err == nil {
			_, _ = c.Write([]byte("x"))
			_, _ = c.Read(make([]byte, 1))
		}
		c.Close()
	})
}

func serveConn(t testing.TB, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { handle(conn); conn.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// examine asks for localhost, whatever the address.
func examine(t testing.TB, address string, o doctor.Options) *doctor.Report {
	t.Helper()
	if o.ServerName == "" {
		o.ServerName = "localhost"
	}
	return doctor.Examine(t.Context(), address, o)
}
