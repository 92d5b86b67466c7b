// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn"
)

func mustSelfSign(t testing.TB, hosts ...string) tls.Certificate {
	t.Helper()
	cert, err := keyturn.SelfSigned("Example", hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestSelfSigned(t *testing.T) {
	type sans struct{ DNS, IP, URI []string }
	for _, test := range []struct {
		hosts []string
		want  sans
	}{
		{nil, sans{DNS: []string{"localhost"}, IP: []string{"127.0.0.1", "::1"}}},
		{[]string{"a.test", "*.a.test", "B.test."}, sans{DNS: []string{"a.test", "*.a.test", "B.test"}}},
		{[]string{"192.0.2.1", "2001:db8::1", "::ffff:192.0.2.2"}, sans{IP: []string{"192.0.2.1", "2001:db8::1", "192.0.2.2"}}},
		{[]string{"spiffe://example.org/web", "https://example.org:8443"}, sans{URI: []string{"spiffe://example.org/web", "https://example.org:8443"}}},
		{[]string{"a.test", "127.0.0.1", "spiffe://example.org/web"}, sans{[]string{"a.test"}, []string{"127.0.0.1"}, []string{"spiffe://example.org/web"}}},
	} {
		cert := mustSelfSign(t, test.hosts...)
		got := sans{DNS: cert.Leaf.DNSNames}
		for _, ip := range cert.Leaf.IPAddresses {
			got.IP = append(got.IP, ip.String())
		}
		for _, u := range cert.Leaf.URIs {
			got.URI = append(got.URI, u.String())
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q: %s", test.hosts, diff)
		}
		var store keyturn.Store
		if err := store.Put("id", cert); err != nil {
			t.Errorf("%q: %v", test.hosts, err)
		}
	}

	cert := mustSelfSign(t)
	leaf := parse(t, cert.Certificate[0])
	public, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() || leaf.IsCA || !leaf.BasicConstraintsValid || leaf.KeyUsage != x509.KeyUsageDigitalSignature ||
		leaf.SerialNumber.Sign() <= 0 || len(leaf.SerialNumber.Bytes()) > 20 || leaf.Subject.String() != "O=Example" {
		t.Errorf("%+v", leaf)
	}
	if other := mustSelfSign(t); other.Leaf.SerialNumber.Cmp(leaf.SerialNumber) == 0 || public.Equal(other.Leaf.PublicKey) {
		t.Error("two certificates have one serial number or key")
	}
}

func TestSelfSignedValidity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaf, now := mustSelfSign(t).Leaf, time.Now()
		if !leaf.NotBefore.Equal(now.Add(-time.Hour)) || !leaf.NotAfter.Equal(now.Add(365*24*time.Hour)) {
			t.Errorf("at %s: valid from %s to %s", now, leaf.NotBefore, leaf.NotAfter)
		}
	})
}

func TestSelfSignedRefuses(t *testing.T) {
	for _, host := range []string{
		"", ".", "*", "*.*.test", "a.*.test", "a..test", "a b.test", "a.test:443", "user@a.test", "münchen.test", "\u212aube.test",
		"[::1]", "1.2.3", "192.0.2.0/24", "fe80::1%eth0", strings.Repeat("a", 64) + ".test",
		"://", "spiffe://", "http://", "spiffe:///web", "spiffe://example.org/a b", "spiffe://example.org/../a", "spiffe://example.org/a?b", "spiffe://user:secret@example.org/",
	} {
		cert, err := keyturn.SelfSigned("Example", "a.test", host)
		if !errors.Is(err, keyturn.ErrBadName) || cert.Certificate != nil || cert.PrivateKey != nil {
			t.Errorf("%q: %v", host, err)
		}
	}
	// crypto/x509 has rules of its own for the hosts of URIs.
	if cert, err := keyturn.SelfSigned("Example", "spiffe://example.org./web"); err == nil || cert.PrivateKey != nil {
		t.Error("a URI that crypto/x509 does not parse was accepted")
	}
	if _, err := keyturn.SelfSigned("Example", make([]string, 1001)...); !errors.Is(err, keyturn.ErrTooLarge) {
		t.Error(err)
	}
	if _, err := keyturn.SelfSigned("\xff"); err == nil {
		t.Error("an organisation that is no text was accepted")
	}
}

// The leaf in the peer's pool is all that it takes, in both directions.
func TestSelfSignedHandshakes(t *testing.T) {
	const id = "spiffe://example.org/web"
	server, client, other := mustSelfSign(t, "a.test", "*.b.test", "127.0.0.1", id), mustSelfSign(t, "client.test"), mustSelfSign(t, "client.test")
	pool := func(cert tls.Certificate) *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(cert.Leaf)
		return pool
	}
	for what, version := range versions {
		var listener keyturn.CertAuthManager
		listener.Update(server)
		listener.SetClientCAs(pool(client))
		listener.SetClientAuth(tls.RequireAndVerifyClientCert)
		if err := listener.SetPeerNames("client.test"); err != nil {
			t.Fatal(err)
		}
		config := listener.ServerConfig()
		config.MaxVersion = version
		for _, name := range []string{"a.test", "x.b.test", "127.0.0.1", id} {
			for shown, want := range map[*tls.Certificate]error{&client: nil, &other: errRefused} {
				var destination keyturn.CertAuthManager
				destination.Update(*shown)
				destination.SetRootCAs(pool(server))
				dial := by(limited(destination.ClientConfig(name), version))
				if _, _, clientErr, serverErr := connect(t, dial, config); !fits(serverErr, want) || (clientErr != nil) != (want != nil) {
					t.Errorf("%s, %s: client %v, server %v, want %v", what, name, clientErr, serverErr, want)
				}
			}
		}
		var stranger keyturn.CertAuthManager
		stranger.Update(client)
		stranger.SetRootCAs(pool(other))
		if _, _, clientErr, _ := connect(t, by(stranger.ClientConfig("a.test")), config); clientErr == nil {
			t.Errorf("%s: another self-signed server is believed", what)
		}
	}
}

// It vouches for nothing else, although its key can sign.
func TestSelfSignedIsNoCA(t *testing.T) {
	cert := mustSelfSign(t)
	ca := &authority{cert: cert.Leaf, key: cert.PrivateKey.(*ecdsa.PrivateKey)}
	config := &tls.Config{Certificates: []tls.Certificate{ca.leaf(t, names("localhost"))}}
	var trust keyturn.Trust
	trust.SetRootCAs(ca.pool())
	if _, _, clientErr, _ := connect(t, by(trust.ClientConfig("localhost")), config); clientErr == nil {
		t.Error("what it has signed is believed")
	}
}

func TestOpenSSLVerifiesSelfSigned(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		const hint = "openssl is not installed; run: apt-get install openssl"
		if os.Getenv("CI") == "true" {
			t.Fatal(hint)
		}
		t.Skip(hint)
	}
	for what, test := range map[string]struct {
		hosts []string
		check []string
	}{
		"default":  {nil, []string{"-verify_hostname", "localhost"}},
		"address":  {[]string{"192.0.2.1", "2001:db8::1"}, []string{"-verify_ip", "2001:db8::1"}},
		"wildcard": {[]string{"*.a.test"}, []string{"-verify_hostname", "x.a.test"}},
		"URI":      {[]string{"spiffe://example.org/web"}, nil},
	} {
		chain, _ := pemOf(t, mustSelfSign(t, test.hosts...))
		file := filepath.Join(t.TempDir(), "cert.pem")
		if err := os.WriteFile(file, chain, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, purpose := range []string{"sslserver", "sslclient"} {
			arguments := append([]string{"verify", "-no-CApath", "-purpose", purpose, "-CAfile", file}, test.check...)
			if out, err := exec.Command(openssl, append(arguments, file)...).CombinedOutput(); err != nil {
				t.Errorf("%s as %s: %v\n%s", what, purpose, err, out)
			}
		}
	}
}
