// SPDX-License-Identifier: Apache-2.0

package ondemand_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/localca"
	"github.com/keyturn/keyturn/ondemand"
)

// TestHandshake serves what clients that verify accept: issued by the first, used by
// the second, whatever the spelling.
func TestHandshake(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, Allow: ondemand.Names("*.example.com")}
	defer s.Close()
	server := &tls.Config{GetCertificate: s.GetCertificate}
	for _, name := range []string{"www.example.com", "www.example.com", "WWW.Example.COM"} {
		if _, _, err := handshake(server, &tls.Config{RootCAs: ca.pool(), ServerName: name}); err != nil {
			t.Fatal(err)
		}
	}
	mustGet(t, s, "www.example.com.")
	ca.once(t, 1, "www.example.com")
	mustGet(t, s, "api.example.com")
	ca.once(t, 1, "www.example.com", "api.example.com")
	_, _, err := handshake(server, &tls.Config{RootCAs: ca.pool(), ServerName: "www.example.org"})
	if err == nil || !strings.Contains(err.Error(), "remote error: tls: internal error") || !errors.Is(err, ondemand.ErrNotAllowed) {
		t.Errorf("%v, want that the client is told of an internal error and nothing else", err)
	}
}

// TestNames has no other names in a certificate than it should.
func TestNames(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{
		Issuer: ca, CommonName: "Web.Internal", Allow: ondemand.Names("*.example.com", "bücher.example", "10.0.0.0/8"),
		Names: []string{"*.web.internal", "192.0.2.1", "spiffe://example.org/web", "web.internal"},
	}
	defer s.Close()
	every := []string{"web.internal", "*.web.internal", "192.0.2.1", "spiffe://example.org/web"}
	for _, name := range []string{"a.example.com", "b.example.com", "xn--bcher-kva.example"} {
		has(t, mustGet(t, s, name), append([]string{name}, every...)...)
	}
	own := mustGet(t, s, "web.internal")
	has(t, own, every...)
	for _, again := range []*tls.ClientHelloInfo{hello("WEB.internal"), hello(""), from("192.0.2.1"), from("172.16.0.1")} {
		if cert, err := s.GetCertificate(again); err != nil || cert != own {
			t.Errorf("%q from %v: another certificate than the service's own, %v", again.ServerName, again.Conn, err)
		}
	}
	byIP, err := s.GetCertificate(from("10.1.2.3"))
	if err != nil {
		t.Fatal(err)
	}
	has(t, byIP, append([]string{"10.1.2.3"}, every...)...)
	literal := from("10.1.2.3")
	literal.ServerName = "10.1.2.3"
	if cert, err := s.GetCertificate(literal); err != nil || cert != byIP {
		t.Errorf("by its address as a name: %v", err)
	}
	literal.ServerName = "10.1.2.4"
	if _, err := s.GetCertificate(literal); !errors.Is(err, ondemand.ErrNotAllowed) {
		t.Errorf("by another address as a name: %v", err)
	}
	if n := ca.calls(); n != 5 {
		t.Errorf("%d certificates were issued, want 5", n)
	}
}

// A local connection knows its own address.
type local struct {
	net.Conn
	addr net.Addr
}

func (l local) LocalAddr() net.Addr { return l.addr }

// from is the hello of a client that connected to an address and sent no name.
func from(ip string) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{Conn: local{addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(ip), 443))}}
}

func TestRefused(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, Allow: ondemand.Names("www.example.com", "*.example.net", "2001:db8::/32")}
	defer s.Close()
	for _, name := range []string{
		"", "example.com", "a.www.example.com", "example.net", "a.b.example.net", "*.example.net", "-.example.net", "a_b.example.net",
		"www.example.com..", ".", "www.example.com:443", "bücher.example.net", "a\x00.example.net", "a b.example.net", strings.Repeat("a", 64) + ".example.net",
		strings.Repeat("a.", 130) + "example.net", "192.0.2.1", "2001:db8::1", "1.2.3", "spiffe://example.net/a", "xn--a.example.net",
	} {
		if err := fails(t, s, name); !errors.Is(err, ondemand.ErrNotAllowed) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if n := ca.calls(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
	if n := s.InMemory(); n != 0 {
		t.Errorf("%d names are in memory, want none", n)
	}
}

// TestOwnNames needs no Allow for what the configuration names.
func TestOwnNames(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, Names: []string{"a.internal", "b.internal"}}
	defer s.Close()
	for _, name := range s.Names {
		has(t, mustGet(t, s, name), "a.internal", "b.internal")
	}
	fails(t, s, "c.internal", "there is no Allow")
	if _, err := s.GetClientCertificate(&tls.CertificateRequestInfo{}); err == nil || !strings.Contains(err.Error(), "no CommonName") {
		t.Errorf("a client's certificate without a CommonName: %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	ca := newFront(t, localca.Config{})
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("%d.example.com", i)
	}
	for says, s := range map[string]*ondemand.Source{
		"no Issuer":             {CommonName: "a.example"},
		"neither a CommonName":  {Issuer: ca},
		"bad name \"a b\"":      {Issuer: ca, CommonName: "a b"},
		"is a wildcard":         {Issuer: ca, CommonName: "*.example.com"},
		"bad name \"x:1\"":      {Issuer: ca, Names: []string{"x:1"}},
		"would have 100 names":  {Issuer: ca, Names: many},
		"not a SPIFFE ID":       {Issuer: ca, Names: []string{"spiffe://Example.org/a"}},
		"2 URIs are given":      {Issuer: ca, Names: []string{"spiffe://example.org/a", "spiffe://example.org/b"}},
		"Timeout cannot be":     {Issuer: ca, CommonName: "a.example", Timeout: -1},
		"MaxNames cannot be":    {Issuer: ca, CommonName: "a.example", MaxNames: -1},
		"unknown key type":      {Issuer: ca, CommonName: "a.example", KeyType: "dsa"},
		"not a range of IP add": {Issuer: ca, Allow: ondemand.Names("10.0.0.0/33")},
	} {
		fails(t, s, "www.example.com", says)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := ca.calls(); n != 0 {
		t.Errorf("%d certificates were issued", n)
	}
}

// TestClient shows the service's own certificate, both ways from one Source.
func TestClient(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Names: []string{"spiffe://example.org/web"}, Allow: ondemand.Names("*.internal")}
	defer s.Close()
	server := &tls.Config{GetCertificate: s.GetCertificate, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}
	client := &tls.Config{GetClientCertificate: s.GetClientCertificate, RootCAs: ca.pool(), ServerName: "db.internal"}
	for range 2 {
		seen, _, err := handshake(server, client)
		if err != nil {
			t.Fatal(err)
		}
		has(t, &tls.Certificate{Leaf: seen.PeerCertificates[0]}, "web.internal", "spiffe://example.org/web")
	}
	if n := ca.calls(); n != 2 {
		t.Errorf("%d certificates were issued, want one for each side", n)
	}
}

// TestUsage has certificates for one use alone, as some roles of a CA are.
func TestUsage(t *testing.T) {
	for _, test := range []struct {
		usage          x509.ExtKeyUsage
		server, client string // why not
	}{
		{x509.ExtKeyUsageServerAuth, "", "lacks the extended key usage clientAuth"},
		{x509.ExtKeyUsageClientAuth, "lacks the extended key usage serverAuth", ""},
		{x509.ExtKeyUsageCodeSigning, "lacks the extended key usage clientAuth", "lacks the extended key usage clientAuth"},
	} {
		s := &ondemand.Source{Issuer: newPlainCA(t, test.usage), CommonName: "web.internal", Allow: ondemand.Names("*.internal")}
		says := func(err error, want string) {
			t.Helper()
			if (err == nil) != (want == "") || err != nil && (!errors.Is(err, issuer.ErrWrongUsage) || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: %v, want %q", test.usage, err, want)
			}
		}
		_, err := s.GetCertificate(hello("web.internal"))
		says(err, test.server)
		_, err = s.GetClientCertificate(&tls.CertificateRequestInfo{})
		says(err, test.client)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s := &ondemand.Source{Issuer: newPlainCA(t, x509.ExtKeyUsageClientAuth), Allow: ondemand.Names("*.internal")}
	defer s.Close()
	fails(t, s, "a.internal", "the issuer's answer", "lacks the extended key usage serverAuth")
}

// A plainCA issues certificates of a day for one use, by an intermediate of an hour.
type plainCA struct {
	root, intermediate *x509.Certificate
	key                crypto.Signer // of both
	usage              x509.ExtKeyUsage
}

func newPlainCA(t *testing.T, usage x509.ExtKeyUsage) *plainCA {
	t.Helper()
	key, err := issuer.ECDSAP256.Generate()
	if err != nil {
		t.Fatal(err)
	}
	ca := &plainCA{key: key, usage: usage}
	sign := func(name string, parent *x509.Certificate, life time.Duration) *x509.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(life),
			Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte(name),
		}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	ca.root = sign("Root of a test", nil, 1000*time.Hour)
	ca.intermediate = sign("CA of a test", ca.root, time.Hour)
	return ca
}

func (ca *plainCA) Issue(_ context.Context, csr *x509.CertificateRequest, _ time.Duration) ([][]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: csr.DNSNames, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{ca.usage},
	}, ca.intermediate, csr.PublicKey, ca.key)
	return [][]byte{der, ca.intermediate.Raw, ca.root.Raw}, err
}

// TestIntermediate serves nothing that clients refuse for an intermediate which has ended.
func TestIntermediate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newPlainCA(t, x509.ExtKeyUsageServerAuth)
		s := &ondemand.Source{Issuer: ca, CommonName: "web.internal"}
		defer s.Close()
		first := mustGet(t, s, "web.internal")
		time.Sleep(41 * time.Minute)
		synctest.Wait()
		if mustGet(t, s, "web.internal") == first {
			t.Error("not renewed with a third of the intermediate's life left")
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		fails(t, s, "web.internal", "has expired")
	})
}

func TestKeys(t *testing.T) {
	ca := newFront(t, localca.Config{})
	var made []crypto.Signer
	for name, s := range map[string]*ondemand.Source{
		"*ecdsa.PrivateKey":  {},
		"*rsa.PrivateKey":    {KeyType: issuer.RSA2048},
		"ed25519.PrivateKey": {KeyType: issuer.Ed25519},
		"one's own": {NewKey: func() (crypto.Signer, error) {
			key, err := issuer.ECDSAP384.Generate()
			made = append(made, key)
			return key, err
		}},
	} {
		s.Issuer, s.CommonName, s.Allow = ca, "web.internal", ondemand.Names("*.internal")
		a, b := mustGet(t, s, "a.internal"), mustGet(t, s, "b.internal")
		if a.PrivateKey.(interface{ Equal(crypto.PrivateKey) bool }).Equal(b.PrivateKey) {
			t.Errorf("%s: two certificates have the same key", name)
		}
		switch key := a.PrivateKey.(type) {
		case *ecdsa.PrivateKey, *rsa.PrivateKey, ed25519.PrivateKey:
			if got := fmt.Sprintf("%T", key); got != name && name != "one's own" {
				t.Errorf("%s: the key is a %s", name, got)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if len(made) != 2 {
		t.Errorf("NewKey was called %d times, want 2", len(made))
	}
	s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", NewKey: func() (crypto.Signer, error) { return nil, errors.New("the module is locked") }}
	defer s.Close()
	fails(t, s, "web.internal", "making its key", "the module is locked")
}

// TestCertificate obtains one before the first handshake.
func TestCertificate(t *testing.T) {
	ca := newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, CommonName: "web.internal", Allow: ondemand.Names("*.internal"), Lifetime: time.Hour}
	defer s.Close()
	cert, err := s.Certificate(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(cert.Leaf.NotAfter); left > time.Hour {
		t.Errorf("it is valid for %s", left)
	}
	if again := mustGet(t, s, "web.internal"); again != cert {
		t.Error("the handshake gets another one")
	}
	other, err := s.Certificate(t.Context(), "DB.internal")
	if err != nil {
		t.Fatal(err)
	}
	has(t, other, "db.internal", "web.internal")
	if _, err := s.Certificate(t.Context(), "db.example"); !errors.Is(err, ondemand.ErrNotAllowed) {
		t.Error(err)
	}
	if _, err := s.Certificate(t.Context(), "*.internal"); !errors.Is(err, ondemand.ErrNotAllowed) || !strings.Contains(err.Error(), `"*.internal"`) {
		t.Error(err)
	}
}

// TestWrongAnswers serves nothing that a client would refuse.
func TestWrongAnswers(t *testing.T) {
	ca, other := newFront(t, localca.Config{}), newFront(t, localca.Config{})
	s := &ondemand.Source{Issuer: ca, Allow: anything}
	defer s.Close()
	good := mustGet(t, s, "good.example.com").Certificate
	for what, test := range map[string]struct {
		answer func([][]byte) [][]byte
		want   error
	}{
		"another's":   {func([][]byte) [][]byte { return good }, issuer.ErrWrongKey},
		"nothing":     {func([][]byte) [][]byte { return nil }, issuer.ErrBrokenChain},
		"junk":        {func([][]byte) [][]byte { return [][]byte{[]byte("junk")} }, issuer.ErrBrokenChain},
		"other chain": {func(c [][]byte) [][]byte { return [][]byte{c[0], other.Intermediate().Raw} }, issuer.ErrBrokenChain},
	} {
		ca.answer = test.answer
		name := strings.NewReplacer(" ", "-", "'", "").Replace(what) + ".example.com"
		if err := fails(t, s, name, "the issuer's answer"); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", what, err, test.want)
		}
	}
}

// TestLater waits no longer than the client does.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newFront(t, localca.Config{})
		ca.set(10*time.Second, nil)
		s := &ondemand.Source{Issuer: ca, Allow: anything}
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if _, err := s.Certificate(ctx, "www.example.com"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want that the client's time is over", err)
		}
		// The issuance went on.
		start := time.Now()
		mustGet(t, s, "www.example.com")
		if waited := time.Since(start); waited != 7*time.Second {
			t.Errorf("the second client waited %s, want the rest of ten seconds", waited)
		}
		ca.once(t, 1, "www.example.com")
	})
}
