// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
	"github.com/keyturn/keyturn/internal/acmetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, acmetest.IgnorePebble()) }

// arguments are those of the example for a CA.
func arguments(t *testing.T, ca *acmetest.CA, more ...string) []string {
	t.Helper()
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, []byte(ca.WebRoots()), 0o600); err != nil {
		t.Fatal(err)
	}
	return append([]string{
		"--agree", "--directory", ca.Directory(), "--roots", roots, "--resolver", ca.DNS.Addr(), "--dir", t.TempDir(),
		"--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(ca.TLSPort)),
	}, more...)
}

// TestRenewals handshakes without a pause, from before the first certificate on,
// through four renewals. None of the handshakes fails.
func TestRenewals(t *testing.T) {
	const lifetime = 40 * time.Second
	ca := acmetest.Start(t, acmetest.Options{Profiles: map[string]time.Duration{"default": lifetime}, NonceReject: 20})
	names := []string{"example.com", "www.example.com"}
	soon := (lifetime - 3*time.Second).String() // every third second, and plenty of time for each
	program := exampletest.Start(t, run, append(arguments(t, ca, "--renew-before", soon), names...)...)
	address := program.After("serving on ")

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	serials := make(chan string)
	for i := range 2 {
		clients.Go(func() {
			dialer := &tls.Dialer{Config: &tls.Config{RootCAs: ca.IssuerRoots(), ServerName: names[i]}}
			for {
				conn, err := dialer.DialContext(ctx, "tcp", address)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					return
				}
				serial := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
				_ = conn.Close() // the handshake is what counts
				select {
				case serials <- serial:
				case <-ctx.Done():
					return
				}
			}
		})
	}
	seen, handshakes := make(map[string]bool), 0
	for len(seen) <= 4 {
		select {
		case serial := <-serials:
			seen[serial] = true
			handshakes++
		case <-program.Lines(): // that there is a new certificate
		}
	}
	t.Logf("%d handshakes with %d certificates", handshakes, len(seen))
	if n := ca.Finalized(); n < len(seen) {
		t.Errorf("%d certificates from %d orders", len(seen), n)
	}
}

// TestKilled kills the program at each point between the order and the certificate on
// the disk. The one that is started after it goes on with the same order.
func TestKilled(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	program := filepath.Join(t.TempDir(), "acme")
	if out, err := exec.Command("go", "build", "-tags", "crashpoints", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, point := range []string{"server/ordered", "acme/validated", "acme/finalised", "acme/downloaded", "server/kept"} {
		name := "example" + strconv.Itoa(i) + ".com"
		args := append(arguments(t, ca), name)
		killed := exec.Command(program, args...)
		killed.Env = append(os.Environ(), "KEYTURN_CRASH="+point)
		out, err := killed.CombinedOutput()
		if killed.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the program was not killed there: %v\n%s", point, err, out)
		}
		t.Run(point, func(t *testing.T) {
			after := exampletest.Start(t, run, args...)
			conn, err := tls.Dial("tcp", after.After("serving on "), &tls.Config{RootCAs: ca.IssuerRoots(), ServerName: name})
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close() // the handshake is what counts
			if n := ca.Finalized(name); n != 1 {
				t.Errorf("%d orders were finalised, want 1", n)
			}
		})
	}
}
