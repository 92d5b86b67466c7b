// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn"
)

// A config of Trust.ServerConfig whose GetConfigForClient is not asked knows no client
// authentication, so it refuses everybody.
func TestServerConfigThatIsNotAsked(t *testing.T) {
	root := newRoot(t, "root")
	trust, base, client := trusting(t, root)
	trust.SetClientCAs(root.pool())
	trust.SetClientAuth(tls.RequireAndVerifyClientCert)
	strict := trust.ServerConfig(base)
	replaced := trust.ServerConfig(base)
	replaced.GetConfigForClient = nil
	answer := func(*tls.ClientHelloInfo) (*tls.Config, error) { return strict, nil }
	inLoose := base.Clone()
	inLoose.GetConfigForClient = answer
	for _, version := range versions {
		for what, server := range map[string]*tls.Config{
			"replaced":                      replaced,
			"answered":                      inLoose,
			"answered within another Trust": new(keyturn.Trust).ServerConfig(inLoose),
		} {
			for _, anonymous := range []bool{false, true} {
				client := limited(client, version)
				if anonymous {
					client.GetClientCertificate = nil
				}
				if _, _, _, err := connect(t, by(client), server); err == nil {
					t.Errorf("%s: a client was accepted, anonymous: %t", what, anonymous)
				}
			}
		}
	}
}

// What a Trust would overrule is not: nobody loses mutual TLS by wrapping a config that has
// it, or by setting it in the wrong place.
func TestServerConfigWithClientAuth(t *testing.T) {
	root := newRoot(t, "root")
	for what, set := range map[string]func(*tls.Config){
		"ClientAuth": func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert },
		"ClientCAs":  func(c *tls.Config) { c.ClientCAs = root.pool() },
	} {
		trust, base, client := trusting(t, root)
		set(base)
		answering := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return base, nil }}
		afterwards := trust.ServerConfig(nil)
		set(afterwards)
		for _, server := range []*tls.Config{trust.ServerConfig(base), trust.ServerConfig(answering), afterwards, afterwards.Clone()} {
			if _, _, _, err := connect(t, by(client), server); err == nil || !strings.Contains(err.Error(), "use SetClientAuth and SetClientCAs") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// Two configs of one Store, or of one Trust, may verify clients in two ways. A session of
// one is not resumed with the other, as crypto/tls would do that without asking
// VerifyPeerCertificate.
func TestSessionsOfAnotherConfig(t *testing.T) {
	root := newRoot(t, "root")
	var store keyturn.Store
	var trust keyturn.Trust
	put(t, &store, "a", root.leaf(t, names("a.test")))
	trust.SetClientAuth(tls.RequireAnyClientCert)
	no := errors.New("no")
	for what, server := range map[string]func(verify func([][]byte, [][]*x509.Certificate) error) *tls.Config{
		"Store": func(verify func([][]byte, [][]*x509.Certificate) error) *tls.Config {
			config := store.ServerConfig()
			config.ClientAuth, config.VerifyPeerCertificate = tls.RequireAnyClientCert, verify
			return config
		},
		"Trust": func(verify func([][]byte, [][]*x509.Certificate) error) *tls.Config {
			return trust.ServerConfig(&tls.Config{GetCertificate: store.GetCertificate, VerifyPeerCertificate: verify})
		},
	} {
		for _, version := range versions {
			client := caching(root, version)
			client.Certificates = []tls.Certificate{root.leaf(t, names("client.test"))}
			loose := server(nil)
			strict := server(func([][]byte, [][]*x509.Certificate) error { return no })
			resumes(t, what, by(client), loose, false)
			resumes(t, what+" again", by(client), loose, true)
			if _, s, _, err := connect(t, by(client), strict); !errors.Is(err, no) {
				t.Errorf("%s: resumed %t, %v", what, s.DidResume, err)
			}
		}
	}
}

// Whoever sets VerifyConnection anew adds a check, or at worst loses one of two.
func TestClientConfigWithAnotherVerifyConnection(t *testing.T) {
	root, other := newRoot(t, "root"), newRoot(t, "other")
	for _, version := range versions {
		for _, name := range []string{"a.test", ""} {
			var trust keyturn.Trust
			trust.SetRootCAs(root.pool())
			if err := trust.SetPeerNames("*.test"); err != nil {
				t.Fatal(err)
			}
			config := limited(trust.ClientConfig(name), version)
			config.ServerName = "a.test"
			config.VerifyConnection = func(tls.ConnectionState) error { return nil }
			for what, test := range map[string]struct {
				cert tls.Certificate
				ok   bool
			}{
				"good":          {root.leaf(t, names("a.test")), true},
				"other root":    {other.leaf(t, names("a.test")), false},
				"other usage":   {root.leaf(t, names("a.test"), usages(x509.ExtKeyUsageClientAuth)), false},
				"other name":    {root.leaf(t, names("b.test")), name == ""},
				"no peer's":     {root.leaf(t, names("a.example")), false},
				"not valid yet": {root.leaf(t, names("a.test"), validity(time.Hour, 2*time.Hour)), false},
			} {
				config := config.Clone()
				config.ClientSessionCache = nil
				_, _, err, _ := connect(t, by(config), &tls.Config{Certificates: []tls.Certificate{test.cert}})
				var failed *tls.CertificateVerificationError
				if test.ok != (err == nil) || err != nil && !errors.As(err, &failed) {
					t.Errorf("%q, %s: %v", name, what, err)
				}
			}
		}
	}
}

// A server that rejects Encrypted Client Hello, and may say what to retry with, is verified
// for its public name, with the roots of the Trust. The handshake fails either way.
func TestDialerWithRejectedECH(t *testing.T) {
	root := newRoot(t, "root")
	server := &tls.Config{Certificates: []tls.Certificate{root.leaf(t, names("public.test"))}}
	dial := func(trust *keyturn.Trust) error {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		base := &tls.Config{EncryptedClientHelloConfigList: echConfigs(key.PublicKey(), "public.test")}
		_, _, clientErr, _ := connect(t, through(trust, base, "a.test:443"), server)
		return clientErr
	}
	var trust keyturn.Trust
	trust.SetRootCAs(root.pool())
	var rejected *tls.ECHRejectionError
	if err := dial(&trust); !errors.As(err, &rejected) {
		t.Error(err)
	}
	trust.SetRootCAs(newRoot(t, "other").pool())
	var failed *tls.CertificateVerificationError
	if err := dial(&trust); !errors.As(err, &failed) {
		t.Error(err)
	}
}

// echConfigs returns an ECHConfigList (RFC 9849, section 4) for X25519, HKDF-SHA256 and
// AES-128-GCM.
func echConfigs(key *ecdh.PublicKey, name string) []byte {
	prefixed := func(b []byte) []byte { return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...) }
	config := append([]byte{1, 0, 0x20}, prefixed(key.Bytes())...)
	config = append(config, 0, 4, 0, 1, 0, 1, 32, byte(len(name)))
	config = append(append(config, name...), 0, 0)
	config = append([]byte{0xfe, 0x0d}, prefixed(config)...)
	return prefixed(config)
}
