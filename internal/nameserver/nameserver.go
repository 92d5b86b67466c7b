// SPDX-License-Identifier: Apache-2.0

// Package nameserver runs Knot DNS, an authoritative name server, for tests. It
// installs it without root rights, once for a user, and starts it on a free
// loopback port:
//
//	s := nameserver.Start(t, nameserver.Options{Zones: []string{"example.test"}})
//	r := resolve.New([]string{s.Addr()}).WithAuthoritativePort(s.Port())
//
// It answers for its zones alone, and takes updates (RFC 2136) that are signed
// with its key. Knot DNS is the one on PATH, else Debian's, unpacked in the user's
// cache directory below "keyturn-test".
package nameserver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/keyturn/keyturn/internal/testprogram"
)

var program = testprogram.Debian{Name: "Knot DNS", Package: "knot", Path: "usr/sbin/knotd"}

// startTime bounds waiting for the server.
const startTime = 30 * time.Second

// Options say what a server answers. The zero value is no zone, on 127.0.0.1.
type Options struct {
	// Zones are what it is authoritative for, without trailing dots.
	Zones []string
	// Records are more lines of the zone files, such as "www.example.test. 60 A
	// 192.0.2.1"; each goes to every zone that it fits into.
	Records []string
	// Host is the loopback address to listen on; "" is 127.0.0.1.
	Host string
	// Port is where to listen; "" is a free one. Servers of one zone share it.
	Port string
	// NameServers are the addresses of the servers of each zone, ns1, ns2 and so on;
	// none is Host.
	NameServers []string
	// KeyName is what the key is called; "" is keyturn-test.
	KeyName string
	// Algorithm is that of the key; "" is hmac-sha256.
	Algorithm string
}

// A Server is a running name server. It ends with the test.
type Server struct {
	// KeyName, KeySecret (base64) and KeyAlgorithm are the TSIG key for updates.
	KeyName, KeySecret, KeyAlgorithm string

	host, port string
	out        bytes.Buffer // read when it has ended
	ended      <-chan struct{}
	cmd        *exec.Cmd
}

// Addr is where it answers, HOST:PORT, over UDP and TCP.
func (s *Server) Addr() string { return net.JoinHostPort(s.host, s.port) }

// Port is the port of Addr.
func (s *Server) Port() string { return s.port }

// Start starts a server and returns when it answers.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	knot := program.Installed(t)
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.Algorithm == "" {
		o.Algorithm = "hmac-sha256"
	}
	if len(o.NameServers) == 0 {
		o.NameServers = []string{o.Host}
	}
	if o.Port == "" {
		port, err := testprogram.FreePort(o.Host)
		if err != nil {
			t.Fatal(err)
		}
		o.Port = strconv.Itoa(port)
	}
	secret := make([]byte, 32)
	rand.Read(secret)
	s := &Server{
		KeyName: cmp.Or(o.KeyName, "keyturn-test"), KeySecret: base64.StdEncoding.EncodeToString(secret), KeyAlgorithm: o.Algorithm,
		host: o.Host, port: o.Port,
	}
	if err := s.run(t, knot, o); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *Server) run(t testing.TB, knot testprogram.Installed, o Options) error {
	dir := t.TempDir()
	if err := s.write(dir, o); err != nil {
		return err
	}
	s.cmd = exec.Command(knot.Path, "--config", filepath.Join(dir, "knot.conf"))
	s.cmd.Env = knot.Environ()
	s.cmd.Dir = dir
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	var err error
	if s.ended, err = testprogram.Start(s.cmd); err != nil {
		return err
	}
	t.Cleanup(s.Stop)
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.answers(ctx, o.Zones) {
		select {
		case <-tick.C:
		case <-s.ended:
			return fmt.Errorf("knot DNS ended: %s", s.out.Bytes())
		case <-ctx.Done():
			s.Stop()
			return fmt.Errorf("knot DNS does not answer: %w: %s", ctx.Err(), s.out.Bytes())
		}
	}
	return nil
}

// answers reports whether every zone is loaded.
func (s *Server) answers(ctx context.Context, zones []string) bool {
	for _, zone := range zones {
		q := new(dns.Msg).SetQuestion(dns.Fqdn(zone), dns.TypeSOA)
		c := &dns.Client{Net: "tcp"}
		m, _, err := c.ExchangeContext(ctx, q, s.Addr())
		if err != nil || len(m.Answer) == 0 {
			return false
		}
	}
	return true
}

// Stop kills the server and returns when it has ended.
func (s *Server) Stop() {
	_ = s.cmd.Process.Kill() // it has ended already, or ends now
	<-s.ended
}

// write writes the configuration and the zones.
func (s *Server) write(dir string, o Options) error {
	var conf strings.Builder
	fmt.Fprintf(&conf, `server:
  rundir: %[1]q
  listen: %[2]s@%[3]s
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: %[1]q
log:
  - target: stderr
    any: info
key:
  - id: %[4]s.
    algorithm: %[5]s
    secret: %[6]s
acl:
  - id: update
    key: %[4]s.
    action: [update, transfer]
zone:
`, dir, s.host, s.port, s.KeyName, s.KeyAlgorithm, s.KeySecret)
	for _, zone := range o.Zones {
		file := zone + ".zone"
		fmt.Fprintf(&conf, "  - domain: %s.\n    storage: %q\n    file: %q\n    acl: update\n    zonefile-sync: -1\n    journal-content: none\n", zone, dir, file)
		if err := os.WriteFile(filepath.Join(dir, file), []byte(o.file(zone)), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "knot.conf"), []byte(conf.String()), 0o600)
}

// file is a zone in the form of RFC 1035.
func (o Options) file(zone string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "$ORIGIN %s.\n@ 60 SOA ns1 hostmaster 1 60 60 3600 1\n", zone)
	for i, address := range o.NameServers {
		kind := "A"
		if strings.Contains(address, ":") {
			kind = "AAAA"
		}
		fmt.Fprintf(&b, "@ 60 NS ns%[1]d\nns%[1]d 60 %[2]s %[3]s\n", i+1, kind, address)
	}
	for _, record := range o.Records {
		name, _, _ := strings.Cut(record, " ")
		if dns.IsSubDomain(dns.Fqdn(zone), dns.Fqdn(name)) {
			b.WriteString(record + "\n")
		}
	}
	return b.String()
}
