// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

// gen.CertManager and gen.CertAuthManager of the Ergo framework.
type (
	certManager interface {
		Update(cert tls.Certificate)
		GetCertificateFunc() func(*tls.ClientHelloInfo) (*tls.Certificate, error)
		GetCertificate() tls.Certificate
	}
	certAuthManager interface {
		certManager
		SetClientCAs(pool *x509.CertPool)
		ClientCAs() *x509.CertPool
		SetRootCAs(pool *x509.CertPool)
		RootCAs() *x509.CertPool
		SetClientAuth(auth tls.ClientAuthType)
		ClientAuth() tls.ClientAuthType
		SetServerName(name string)
		ServerName() string
	}
)

var (
	_ certManager     = (*keyturn.CertManager)(nil)
	_ certManager     = (*keyturn.CertAuthManager)(nil)
	_ certAuthManager = (*keyturn.CertAuthManager)(nil)
)

// asFramework is the config that a framework makes of a manager's getters, once.
func asFramework(m certManager) *tls.Config {
	return &tls.Config{GetCertificate: m.GetCertificateFunc()}
}

func TestCertManagerWithoutCertificate(t *testing.T) {
	var manager keyturn.CertManager
	if cert := manager.GetCertificate(); cert.Certificate != nil || cert.PrivateKey != nil || cert.Leaf != nil {
		t.Errorf("the zero value has %v", cert)
	}
	client := &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}
	var unknown *keyturn.UnknownNameError
	if _, _, clientErr, serverErr := connect(t, by(client), asFramework(&manager)); clientErr == nil || !errors.As(serverErr, &unknown) {
		t.Errorf("client %v, server %v", clientErr, serverErr)
	}
	var auth keyturn.CertAuthManager
	if auth.ClientCAs() != nil || auth.RootCAs() != nil || auth.ClientAuth() != tls.NoClientCert || auth.ServerName() != "" {
		t.Error("the zero value is not empty")
	}
}

// Whatever a client asks for, it gets the certificate.
func TestCertManagerAnswersAll(t *testing.T) {
	root := newRoot(t, "root")
	var manager keyturn.CertManager
	config := asFramework(&manager)
	for _, has := range []string{"a.test", "127.0.0.1", "*.b.test"} {
		cert := root.leaf(t, names(has))
		manager.Update(cert)
		if got := manager.GetCertificate(); !slices.Equal(got.Certificate[0], cert.Certificate[0]) || got.Leaf == nil || got.PrivateKey != cert.PrivateKey {
			t.Errorf("GetCertificate is not that of %s", has)
		}
		for _, asked := range []string{"a.test", "x.b.test", "c.test", "127.0.0.1", "::1", "", "localhost"} {
			for what, version := range versions {
				client := &tls.Config{ServerName: asked, InsecureSkipVerify: true, MaxVersion: version}
				c, _, clientErr, serverErr := connect(t, by(client), config)
				if clientErr != nil || serverErr != nil || !slices.Equal(c.PeerCertificates[0].Raw, cert.Certificate[0]) {
					t.Errorf("%s, %s asked for %q: client %v, server %v", has, what, asked, clientErr, serverErr)
				}
			}
		}
	}
}

func TestCertManagerKeepsWhatIsGood(t *testing.T) {
	root := newRoot(t, "root")
	good := root.leaf(t, names("a.test"))
	var manager keyturn.CertManager
	manager.Update(good)
	events := make(chan keyturn.Event, 10)
	defer manager.Store().Observe(events)()
	for what, test := range map[string]struct {
		cert tls.Certificate
		want error
	}{
		"empty":     {tls.Certificate{}, keyturn.ErrEmpty},
		"expired":   {root.leaf(t, names("a.test"), validity(-2*time.Hour, -time.Hour)), keyturn.ErrExpired},
		"other key": {tls.Certificate{Certificate: good.Certificate, PrivateKey: newKey(t, x509.ECDSA)}, keyturn.ErrKeyMismatch},
		"no names":  {root.leaf(t), keyturn.ErrNoNames},
		"wrong use": {root.leaf(t, names("a.test"), usages(x509.ExtKeyUsageCodeSigning)), keyturn.ErrWrongUsage},
	} {
		manager.Update(test.cert)
		if event := <-events; event.Kind != keyturn.Refused || !errors.Is(event.Err, test.want) {
			t.Errorf("%s: %+v, want %v", what, event, test.want)
		}
		if got := manager.GetCertificate(); !slices.Equal(got.Certificate[0], good.Certificate[0]) {
			t.Errorf("%s: it has replaced what was good", what)
		}
		client := &tls.Config{ServerName: "a.test", RootCAs: root.pool()}
		if _, _, clientErr, serverErr := connect(t, by(client), asFramework(&manager)); clientErr != nil || serverErr != nil {
			t.Errorf("%s: client %v, server %v", what, clientErr, serverErr)
		}
	}
	next := root.leaf(t, names("a.test"))
	manager.Update(next)
	if event := <-events; event.Kind != keyturn.Swapped || !slices.Equal(manager.GetCertificate().Certificate[0], next.Certificate[0]) {
		t.Errorf("after a good one: %+v", event)
	}
}

// Mutual TLS between two managers, with everything changed while they run.
func TestCertAuthManager(t *testing.T) {
	roots := []*authority{newRoot(t, "first"), newRoot(t, "second")}
	for what, version := range versions {
		t.Run(what, func(t *testing.T) {
			var server, client keyturn.CertAuthManager
			server.SetClientAuth(tls.RequireAndVerifyClientCert)
			listener := server.ServerConfig("raw")
			config := limited(client.ClientConfig("ignored.test"), version)
			config.NextProtos = []string{"raw"}
			dials := map[string]func(net.Conn) (*tls.Conn, error){
				"ClientConfig": by(config),
				"Dialer":       through(&client.Trust, limited(&tls.Config{GetClientCertificate: client.Store().GetClientCertificate, NextProtos: []string{"raw"}}, version), "127.0.0.1:1"),
			}
			for _, root := range append(roots, roots...) {
				server.Update(root.leaf(t, names("server.test")))
				client.Update(root.leaf(t, names("client.test")))
				for how, dial := range dials {
					server.SetClientCAs(nil)
					client.SetRootCAs(root.pool())
					client.SetServerName("server.test")
					if _, _, clientErr, serverErr := connect(t, dial, listener); clientErr == nil || !errors.Is(serverErr, keyturn.ErrNoClientCAs) {
						t.Errorf("%s: without client CAs: client %v, server %v", how, clientErr, serverErr)
					}
					server.SetClientCAs(root.pool())
					c, s, clientErr, serverErr := connect(t, dial, listener)
					if clientErr != nil || serverErr != nil || c.NegotiatedProtocol != "raw" || s.PeerCertificates[0].Issuer.CommonName != root.cert.Subject.CommonName {
						t.Errorf("%s: client %v, server %v", how, clientErr, serverErr)
					}
					client.SetServerName("other.test")
					if _, _, clientErr, _ := connect(t, dial, listener); clientErr == nil {
						t.Errorf("%s: a server of another name is believed", how)
					}
				}
			}
			if server.ServerConfig().NextProtos[0] != "h2" {
				t.Errorf("protocols %q", server.ServerConfig().NextProtos)
			}
		})
	}
}

// What is put into its Store under its id is its certificate, whatever is asked for.
func TestCertManagerStore(t *testing.T) {
	root := newRoot(t, "root")
	var manager keyturn.CertManager
	put(t, manager.Store(), keyturn.CertManagerID, root.leaf(t, names("a.test")))
	if leaf := manager.GetCertificate().Leaf; leaf == nil || leaf.DNSNames[0] != "a.test" {
		t.Errorf("the certificate is %v", leaf)
	}
	cert, err := manager.GetCertificateFunc()(&tls.ClientHelloInfo{ServerName: "b.test"})
	if err != nil || cert.Leaf.DNSNames[0] != "a.test" {
		t.Errorf("b.test gets %v, %v", cert, err)
	}
}
