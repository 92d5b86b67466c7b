// SPDX-License-Identifier: Apache-2.0

package stepca

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/testprogram"
)

// module has the program. Of its databases the tests use one.
var module = testprogram.Module{Name: "step-ca", Packages: []string{"."}, Tags: "nobadger,nomysql,nopgx"}

// provisioner is the name of the part of the CA that speaks ACME.
const provisioner = "acme"

// Options say how a CA asks.
type Options struct {
	// DNS is the HOST:PORT of the DNS server that it asks, over UDP and TCP; "" is
	// the system's.
	DNS string
	// HTTPPort and TLSPort are where it looks for http-01 and tls-alpn-01; 0 picks
	// one that is free now, for the test to listen on.
	HTTPPort, TLSPort int
	// Lifetime is how long certificates are valid from now; 0 is step-ca's 24
	// hours. They begin a minute before.
	Lifetime time.Duration
}

// A CA is a running step-ca. It keeps nothing after the test.
type CA struct {
	// HTTPPort and TLSPort are those of Options, or what was picked for them.
	HTTPPort, TLSPort int

	directory string
	roots     []byte // PEM
	pool      *x509.CertPool
	cmd       *exec.Cmd
	out       bytes.Buffer // read when it has ended
	ended     <-chan struct{}
}

// Start returns a CA that answers, and ends with the test.
func Start(tb testing.TB, o Options) *CA {
	tb.Helper()
	dir := module.Programs(tb)
	ctx, cancel := context.WithTimeout(tb.Context(), testprogram.BuildTime)
	defer cancel()
	ca, err := start(ctx, filepath.Join(dir, module.Name), tb.TempDir(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ca.stop()
		if tb.Failed() {
			tb.Logf("step-ca said:\n%s", ca.out.Bytes())
		}
	})
	return ca
}

// Directory is the URL of its ACME directory.
func (ca *CA) Directory() string { return ca.directory }

// WebRoots are the PEM certificates by which its web server is known.
func (ca *CA) WebRoots() string { return string(ca.roots) }

// IssuerRoots are what its certificates are verified by. Its web server's is one of
// them.
func (ca *CA) IssuerRoots() *x509.CertPool { return ca.pool.Clone() }

func start(ctx context.Context, path, dir string, o Options) (*CA, error) {
	port, err := testprogram.FreePort(host)
	if err != nil {
		return nil, err
	}
	ca := &CA{HTTPPort: o.HTTPPort, TLSPort: o.TLSPort}
	for _, p := range []*int{&ca.HTTPPort, &ca.TLSPort} {
		if *p != 0 {
			continue
		}
		if *p, err = testprogram.FreePort(host); err != nil {
			return nil, err
		}
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	ca.directory = "https://" + address + "/acme/" + provisioner + "/directory"
	settings, err := configure(dir, address, o.Lifetime)
	if err != nil {
		return nil, err
	}
	ca.roots, ca.pool = settings.roots, x509.NewCertPool()
	ca.pool.AppendCertsFromPEM(ca.roots)

	ca.cmd = exec.Command(path, "-dns", o.DNS, "-http-port", strconv.Itoa(ca.HTTPPort),
		"-tls-port", strconv.Itoa(ca.TLSPort), settings.file)
	ca.cmd.Env = append(ca.cmd.Environ(), "STEPPATH="+dir, "HTTP_PROXY=", "http_proxy=")
	ca.cmd.Stdout, ca.cmd.Stderr = &ca.out, &ca.out
	if ca.ended, err = testprogram.Start(ca.cmd); err != nil {
		return nil, err
	}
	return ca, ca.ready(ctx)
}

// ready returns when the CA answers.
func (ca *CA) ready(ctx context.Context) error {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.pool}}
	defer transport.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !answers(ctx, transport, ca.directory) {
		select {
		case <-tick.C:
		case <-ca.ended:
			return fmt.Errorf("step-ca ended: %s", ca.out.Bytes())
		case <-ctx.Done():
			ca.stop()
			return fmt.Errorf("step-ca does not answer: %w: %s", ctx.Err(), ca.out.Bytes())
		}
	}
	return nil
}

func answers(ctx context.Context, transport http.RoundTripper, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be closed
	return resp.StatusCode == http.StatusOK
}

// stop kills the CA and returns when it has ended.
func (ca *CA) stop() {
	_ = ca.cmd.Process.Kill() // it has ended already, or ends now
	<-ca.ended
}
