// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The program serves what SIGHUP has it read, and stays with that when files are bad, while
// clients connect all the time.
func TestSIGHUP(t *testing.T) {
	program := filepath.Join(t.TempDir(), "cron")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	ca, files := exampletest.NewCA(t), exampletest.NewPair(t)
	cert, first := ca.Issue(t)
	files.Write(t, cert)
	cmd := exec.Command(program, "--cert", files.Cert, "--key", files.Key, "--listen", "127.0.0.1:0", "--interval", "1h")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	output := exampletest.Read(t, stdout)
	defer func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		output.End()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program ended: %v\n%s", err, &stderr)
		}
	}()
	hangup := func() {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	server, err := url.Parse(output.After("serving on "))
	if err != nil {
		t.Fatal(err)
	}
	output.After("new certificate")

	// served does a handshake and returns the serial number of the certificate.
	served := func() string {
		conn, err := tls.Dial("tcp", server.Host, &tls.Config{RootCAs: ca.Pool()})
		if err != nil {
			t.Error(err)
			return ""
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	stop := make(chan struct{})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(stop)
	for range 2 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					served()
				}
			}
		})
	}

	if got := served(); got != first {
		t.Errorf("served %s, want %s", got, first)
	}
	cert, second := ca.Issue(t)
	files.Write(t, cert)
	if got := served(); got != first {
		t.Errorf("served %s before SIGHUP, want %s", got, first)
	}
	hangup()
	output.After("new certificate")
	if got := served(); got != second {
		t.Errorf("served %s, want %s", got, second)
	}

	exampletest.Replace(t, files.Cert, []byte("junk"))
	hangup()
	output.After("not read: ")
	stale, _ := ca.IssueUntil(t, time.Now().Add(-time.Minute))
	files.Write(t, stale)
	hangup()
	output.After("refused: ")
	if got := served(); got != second {
		t.Errorf("served %s, want %s to stay", got, second)
	}
}

// Without a signal the files are read now and then.
func TestInterval(t *testing.T) {
	ca, files := exampletest.NewCA(t), exampletest.NewPair(t)
	output := exampletest.Start(t, run, "--cert", files.Cert, "--key", files.Key, "--listen", "127.0.0.1:0", "--interval", "10ms")
	output.After("not read: ")
	cert, _ := ca.Issue(t)
	files.Write(t, cert)
	output.After("new certificate")
	cert, _ = ca.IssueUntil(t, time.Now().Add(-time.Minute))
	files.Write(t, cert)
	output.After("refused: ")
}
