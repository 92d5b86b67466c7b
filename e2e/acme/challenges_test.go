// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/resolve"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/solver"
)

// renewAll is how long the renewal of all certificates of a CA may take.
const renewAll = 2 * time.Minute

// A row is a kind of certificate.
type row struct {
	name      string
	challenge string
	key       issuer.KeyType
	names     []string // "$" tells those of several CAs apart
	hook      bool     // the test's own hook sets the records
}

// namesFor are the names that a CA is asked for.
func (r row) namesFor(ca ca) []string {
	return strings.Split(strings.ReplaceAll(strings.Join(r.names, ","), "$", ca.name), ",")
}

var rows = []row{
	// Names and addresses of one replica each: a certificate for them takes the answers
	// of both.
	{"HTTPByReplicas", solver.HTTP01, issuer.ECDSAP256, []string{"$-h.two.example.test", "$-h.three.example.test", "$-h.both.example.test", replicaTwo, replicaThree}, false},
	{"TLSByReplicas", solver.TLSALPN01, issuer.ECDSAP256, []string{"$-t.two.example.test", "$-t.three.example.test", "$-t.both.example.test", replicaTwo, replicaThree}, false},
	{"RSAByReplicas", solver.TLSALPN01, issuer.RSA2048, []string{"$-r.two.example.test", "$-r.three.example.test"}, false},

	{"HTTPAlone", solver.HTTP01, issuer.ECDSAP256, []string{"$-h1.alone.example.test", "$-h2.alone.example.test"}, false},
	{"TLSAlone", solver.TLSALPN01, issuer.ECDSAP384, []string{"$-t1.alone.example.test", "$-t2.alone.example.test"}, false},
	{"Webroot", solver.HTTP01, issuer.ECDSAP256, []string{"$-w1.webroot.example.test", "$-w2.webroot.example.test"}, false},

	{"Wildcard", solver.DNS01, issuer.ECDSAP256, []string{"$.rfc2136.example.test", "*.$.rfc2136.example.test"}, false},
	{"WildcardRSA", solver.DNS01, issuer.RSA2048, []string{"*.$.deep.rfc2136.example.test"}, false},
	{"Delegated", solver.DNS01, issuer.ECDSAP256, []string{"$.alias.rfc2136.example.test"}, false},
	{"Exec", solver.DNS01, issuer.ECDSAP256, []string{"*.$.exec.example.test"}, true},
	{"Webhook", solver.DNS01, issuer.ECDSAP256, []string{"*.$.webhook.example.test"}, true},
}

// TestChallenges has two CAs that share no code look at every kind of answer: when a
// command makes a certificate, and when a manager renews them all.
func TestChallenges(t *testing.T) {
	s := newStage(t)
	s.join("two", replicaTwo, exampleServer)
	s.join("three", replicaThree, exampleServer)
	for _, ca := range s.cas {
		t.Run(ca.name, func(t *testing.T) {
			ids := make(map[string]row)
			for _, row := range rows {
				t.Run(row.name, func(t *testing.T) {
					s := s.in(t)
					id := s.make(ca, row)
					s.look(ca, id, 1, row)
					s.nothingLeft(ca, row)
					ids[id] = row
				})
			}
			if t.Failed() {
				return // what a row has left behind would fail again
			}
			s := s.in(t)
			s.keyturn("cert", "renew", "--all", "--issuer", ca.name, "--timeout", renewAll.String())
			for id, row := range ids {
				s.keyturn("status", id, "--wait") // the command before waits until it is made
				s.look(ca, id, 2, row)
				s.nothingLeft(ca, row)
			}
		})
	}
}

// make has a command make a certificate, and returns its id.
func (s *stage) make(ca ca, row row) string {
	s.t.Helper()
	out := s.keyturn("cert", "mk", "--names", strings.Join(row.namesFor(ca), ","), "--issuer", ca.name, "--challenge", row.challenge,
		"--key", row.key.String(), "--group", group, "--timeout", patience.String(), "--wait", "served")
	return strings.TrimSpace(out)
}

// look looks at a certificate as clients do, and at what was asked for it.
func (s *stage) look(ca ca, id string, generation int, row row) {
	s.t.Helper()
	names := row.namesFor(ca)
	c, chain, err := s.cat(id)
	if err != nil {
		s.t.Errorf("%s: %v", id, err)
		return
	}
	if c.Generation != uint64(generation) || len(c.Names) != len(names) {
		s.t.Errorf("%s is generation %d for %q, want %d for %q", id, c.Generation, c.Names, generation, names)
	}
	leaf, intermediates := chain[0], x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	for _, name := range names {
		host := strings.Replace(name, "*.", "any.", 1)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.roots(), Intermediates: intermediates, DNSName: host}); err != nil {
			s.t.Errorf("%s: %v", id, err)
		}
		for replica, ip := range map[string]string{"two": replicaTwo, "three": replicaThree} {
			if err := s.serves(ca, ip, host, leaf); err != nil {
				s.t.Errorf("%s: the replica %s, asked for %s: %v", id, replica, host, err)
			}
		}
		for _, action := range []string{"present", "cleanup"} {
			// Pebble never quite leaves it to use an authorisation again.
			if n := s.hooks.calls(action, name); row.hook && (n < 1 || n > generation) {
				s.t.Errorf("%s: %s was called %d times for %s, want once for each of %d generations", id, action, n, name, generation)
			}
		}
	}
	if got := issuer.KeyTypeOf(leaf.PublicKey); got != row.key {
		s.t.Errorf("%s has a key of type %s, want %s", id, got, row.key)
	}
	if ca.finalized != nil {
		if n := ca.finalized(names...); n != generation {
			s.t.Errorf("%s: %d orders were finalised for %d generations", id, n, generation)
		}
	}
}

// serves makes a handshake with a replica, which has to show the certificate. Clients
// name no addresses.
func (s *stage) serves(ca ca, ip, host string, leaf *x509.Certificate) error {
	if net.ParseIP(host) != nil {
		return nil
	}
	conn, err := tls.Dial("tcp", s.tls(ip), &tls.Config{RootCAs: ca.roots(), ServerName: host})
	if err != nil {
		return err
	}
	defer conn.Close()
	if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(leaf) {
		return fmt.Errorf("it has serial %x, want %x", got.SerialNumber, leaf.SerialNumber)
	}
	return nil
}

// nothingLeft looks for answers that were not taken away.
func (s *stage) nothingLeft(ca ca, row row) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.webroot, ".well-known", "acme-challenge", "*"))
	if err != nil || len(files) > 0 {
		s.t.Errorf("left behind: %q, %v", files, err)
	}
	for _, addr := range []string{s.http(managerHost), s.tls(managerHost)} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			s.t.Errorf("the port is not free: %v", err)
			continue
		}
		_ = l.Close() // nothing was written
	}
	r := resolve.New([]string{s.dns.Addr()})
	for _, name := range row.namesFor(ca) {
		if net.ParseIP(name) != nil {
			continue
		}
		host := "_acme-challenge." + strings.TrimPrefix(name, "*.")
		if texts, err := r.TXT(s.t.Context(), host); err != nil || len(texts) > 0 {
			s.t.Errorf("left behind at %s: %q, %v", host, texts, err)
		}
	}
}
