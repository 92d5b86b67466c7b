// SPDX-License-Identifier: Apache-2.0

package cfsslserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/durable"
	"github.com/keyturn/keyturn/internal/testprogram"
)

// host is where servers listen, and the name that they have.
const host = "127.0.0.1"

// patience is how long a server may take to answer.
const patience = time.Minute

// module has the programs.
var module = testprogram.Module{Name: "cfssl", Packages: []string{
	"github.com/cloudflare/cfssl/cmd/cfssl", "github.com/cloudflare/cfssl/cmd/cfssljson", "github.com/cloudflare/cfssl/cmd/multirootca",
	"bitbucket.org/liamstask/goose/cmd/goose",
}}

// Options say what a server is like.
type Options struct {
	// Default is what is signed where a request names no profile.
	Default Profile
	// Profiles are the others, by name.
	Profiles map[string]Profile
	// Label makes the server a multirootca with one CA of this name.
	Label string
	// Database has the server keep what it signs.
	Database bool
	// ClientRoot has the server want a client certificate that Certificate has made.
	ClientRoot bool
	// ClientName is a regular expression for the common name of that certificate, which
	// is "keyturn"; "" is any.
	ClientName string
	// Nets are the addresses that a multirootca takes requests from; "" is all.
	Nets string
	// SelfSigned has a root sign, without an intermediate.
	SelfSigned bool
}

// A Server is a running CFSSL. It keeps nothing after the test.
type Server struct {
	// Address is the URL of its API, without the path.
	Address string
	// TLSRoots is the PEM file of what the server itself is known by.
	TLSRoots string
	// Root is what its certificates are verified by.
	Root *x509.Certificate

	programs, dir string
	options       Options
	clients       authority // signs client certificates
	cmd           *exec.Cmd
	out           *bytes.Buffer // read when it has ended
	ended         <-chan struct{}
}

// Start returns a server that answers, and ends with the test.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s := &Server{programs: Programs(tb), dir: tb.TempDir(), options: o}
	tb.Cleanup(func() {
		if s.cmd == nil {
			return
		}
		s.kill()
		if tb.Failed() {
			tb.Logf("%s said:\n%s", s.Address, s.out.Bytes())
		}
	})
	port, err := testprogram.FreePort(host)
	if err != nil {
		tb.Fatal(err)
	}
	s.Address = "https://" + net.JoinHostPort(host, strconv.Itoa(port))
	s.NewCA(tb)
	if err := s.configure(); err != nil {
		tb.Fatal(err)
	}
	if o.Database {
		s.migrate(tb)
	}
	s.Restart(tb)
	return s
}

// Programs returns the directory of the programs, built if they have to be.
func Programs(tb testing.TB) string {
	tb.Helper()
	return module.Programs(tb)
}

// Stop kills the server. What it has in files stays.
func (s *Server) Stop(testing.TB) { s.kill() }

// Hang has the server answer nothing until it is continued.
func (s *Server) Hang(tb testing.TB) { testprogram.Hang(tb, s.cmd) }

// Continue ends what Hang began.
func (s *Server) Continue(tb testing.TB) { testprogram.Continue(tb, s.cmd) }

// Restart starts a server that was stopped, and returns when it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	s.out = new(bytes.Buffer)
	s.cmd = exec.Command(filepath.Join(s.programs, s.program()), s.arguments()...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, s.out, s.out
	var err error
	if s.ended, err = testprogram.Start(s.cmd); err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := s.reach(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.ended:
			tb.Fatalf("CFSSL ended: %s", s.out.Bytes())
		case <-ctx.Done():
			tb.Fatalf("CFSSL does not answer: %v", err)
		}
	}
}

// CRL is the list of what the server has revoked, as it hands it out.
func (s *Server) CRL(tb testing.TB) *x509.RevocationList {
	tb.Helper()
	list, err := s.crl(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

func (s *Server) crl(ctx context.Context) (*x509.RevocationList, error) {
	roots, err := readPool(s.TLSRoots)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Address+"/api/v1/cfssl/crl", nil)
	if err != nil {
		return nil, err
	}
	resp, err := transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		Result []byte `json:"result"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(answer.Result)
}

// reach makes a connection. A server that wants a client certificate ends it after that.
func (s *Server) reach(ctx context.Context) error {
	roots, err := readPool(s.TLSRoots)
	if err != nil {
		return err
	}
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots}}
	conn, err := dialer.DialContext(ctx, "tcp", s.Address[len("https://"):])
	if err != nil {
		return err
	}
	return conn.Close()
}

// kill ends the server and returns when it has.
func (s *Server) kill() {
	_ = s.cmd.Process.Kill() // it has ended already, or ends now
	<-s.ended
}

// migrate makes the database with what CFSSL brings for that.
func (s *Server) migrate(tb testing.TB) {
	tb.Helper()
	source, err := module.Source(tb.Context(), "github.com/cloudflare/cfssl")
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(tb.Context(), filepath.Join(s.programs, "goose"), "-path", filepath.Join(source, "certdb", "sqlite"), "up")
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("making the database: %v: %s", err, out)
	}
}

// database is the file that goose makes.
const database = "certstore_development.db"

// BreakDatabase has the server find junk in the place of its database.
func (s *Server) BreakDatabase(tb testing.TB) {
	tb.Helper()
	if err := os.WriteFile(s.file(database), bytes.Repeat([]byte("junk"), 1<<10), durable.PrivateFile); err != nil {
		tb.Fatal(err)
	}
}

// program is the one that serves.
func (s *Server) program() string {
	if s.options.Label != "" {
		return "multirootca"
	}
	return "cfssl"
}

func (s *Server) arguments() []string {
	_, port, _ := net.SplitHostPort(s.Address[len("https://"):]) // it is one of Start's
	serve := []string{"-tls-cert", s.TLSRoots, "-tls-key", s.file("server.key")}
	if s.options.Label != "" {
		return append(serve, "-a", net.JoinHostPort(host, port), "-roots", s.file("roots.conf"))
	}
	serve = append([]string{
		"serve", "-address", host, "-port", port, "-config", s.file("config.json"), "-ca", s.file("ca.pem"), "-ca-key", s.file("ca.key"),
	}, serve...)
	if s.options.Database {
		serve = append(serve, "-db-config", s.file("db.json"))
	}
	if s.options.ClientRoot {
		serve = append(serve, "-mutual-tls-ca", s.file("clients.pem"), "-mutual-tls-cn", s.options.ClientName)
	}
	return serve
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }
