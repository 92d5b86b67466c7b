// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/config"
	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/internal/nameserver"
	"github.com/keyturn/keyturn/internal/stepca"
)

// Where the hosts are that CAs look at. The port of a manager is at another address
// than that of the replicas, so that it cannot answer for them.
const (
	replicaTwo   = "127.0.0.2"
	replicaThree = "127.0.0.3"
	webServer    = "127.0.0.4"
	managerHost  = "127.0.0.5"
	nobody       = "127.0.0.6" // where no name server is
)

const zone = "example.test"

// hosts are the name server's: each name below "two" is one of the replica's, and so on.
var hosts = []string{
	"*.two A " + replicaTwo, "*.three A " + replicaThree, "*.both A " + replicaTwo, "*.both A " + replicaThree,
	"*.webroot A " + webServer, "*.alone A " + managerHost,
	"_acme-challenge.pebble.alias.rfc2136 CNAME pebble.answers", "_acme-challenge.stepca.alias.rfc2136 CNAME stepca.answers",
}

// A stage is all that the rows need.
type stage struct {
	*fleet
	dns     *nameserver.Server
	hooks   *hooks
	webroot string
	cas     []ca
}

type ca struct {
	name      string
	directory string
	webRoots  string
	roots     func() *x509.CertPool
	finalized func(names ...string) int // nil where the CA does not say
}

func newStage(t *testing.T) *stage {
	s := &stage{webroot: t.TempDir()}
	o := nameserver.Options{Zones: []string{zone, "test"}, NameServers: []string{nobody}}
	for _, h := range hosts {
		name, rest, _ := strings.Cut(h, " ")
		kind, value, _ := strings.Cut(rest, " ")
		o.Records = append(o.Records, fmt.Sprintf("%s.%s. 60 %s %s", name, zone, kind, value))
	}
	s.dns = nameserver.Start(t, o)
	s.hooks = startHooks(t, s.dns)
	s.fleet = newFleet(t, func(f *fleet) *config.Shared {
		s.cas = startCAs(t, f, s.dns.Addr())
		return s.shared(t, f)
	})
	serveWebroot(t, s.webroot, s.http(webServer))
	return s
}

// in is the stage for a test within its test.
func (s *stage) in(t *testing.T) *stage {
	own, f := *s, *s.fleet
	f.t, own.fleet = t, &f
	return &own
}

// startCAs starts both CAs: they ask the same name server, and look at the same ports.
func startCAs(t *testing.T, f *fleet, dns string) []ca {
	pebble := acmetest.Start(t, acmetest.Options{Resolver: dns, HTTPPort: f.httpPort, TLSPort: f.tlsPort})
	step := stepca.Start(t, stepca.Options{DNS: dns, HTTPPort: f.httpPort, TLSPort: f.tlsPort})
	return []ca{
		{"pebble", pebble.Directory(), pebble.WebRoots(), pebble.IssuerRoots, pebble.Finalized},
		{"stepca", step.Directory(), step.WebRoots(), step.IssuerRoots, nil},
	}
}

// shared is the configuration: a zone for each solver, and none for the replicas.
func (s *stage) shared(t *testing.T, f *fleet) *config.Shared {
	test, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &config.Shared{
		Issuers: make(map[string]config.Issuer),
		Solvers: map[string]config.Solver{
			"alone-http": {Type: "http-01", Settings: map[string]string{"listen": f.http(managerHost)}},
			"alone-tls":  {Type: "tls-alpn-01", Settings: map[string]string{"listen": f.tls(managerHost)}},
			"webroot":    {Type: "webroot", Settings: map[string]string{"path": s.webroot}},
			"rfc2136":    {Type: "rfc2136", Settings: map[string]string{"server": s.dns.Addr(), "key_name": s.dns.KeyName, "key_secret": s.dns.KeySecret}},
			"exec":       {Type: "exec", Settings: map[string]string{"program": test, "arguments": hookCommand + " " + s.hooks.url + "/exec"}},
			"webhook":    {Type: "webhook", Settings: map[string]string{"url": s.hooks.url + "/webhook", "secret": hookSecret}},
		},
		Zones: map[string][]string{
			"alone." + zone: {"alone-http", "alone-tls"}, "webroot." + zone: {"webroot"}, "rfc2136." + zone: {"rfc2136"},
			"exec." + zone: {"exec"}, "webhook." + zone: {"webhook"},
		},
		Resolvers: []string{s.dns.Addr()},
	}
	for _, ca := range s.cas {
		c.DefaultIssuer = ca.name
		c.Issuers[ca.name] = config.Issuer{Type: "acme", ACME: &config.ACME{Directory: ca.directory, Roots: ca.webRoots, TermsAgreed: true}}
	}
	return c
}

// serveWebroot serves a directory, as the web server of an operator's does.
func serveWebroot(t *testing.T, dir, addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.FileServer(http.Dir(dir)))
	_ = server.Listener.Close() // its own is not needed
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
}
