// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn"
	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The server sees the client's new certificate, and the client follows the server to a new
// CA, without a failed request.
func TestRotation(t *testing.T) {
	old, next := exampletest.NewCA(t), exampletest.NewCA(t)
	var server keyturn.CertAuthManager
	cert, _ := old.Issue(t)
	server.Update(cert)
	server.SetClientCAs(old.Pool())
	server.SetClientAuth(tls.RequireAndVerifyClientCert)
	url, stop := serve(t, &server)
	defer stop()

	files, cas := exampletest.NewPair(t), exampletest.NewCAs(t, old)
	own, first := old.Issue(t)
	files.Write(t, own)
	client := exampletest.Start(t, run, "--cert", files.Cert, "--key", files.Key, "--ca", cas, "--every", "1ms", url)
	// until reads what the client says until it says want. No request may fail.
	until := func(want string) {
		t.Helper()
		for {
			switch line := client.Line(); {
			case line == want:
				return
			case strings.HasPrefix(line, "failed"):
				t.Fatal(line)
			}
		}
	}
	seen := func(serial string) string { return fmt.Sprintf("200 OK: %q", serial) }
	until(seen(first))
	own, second := old.Issue(t)
	files.Write(t, own)
	until(seen(second))

	// Both trust both CAs, then the certificates change, then only the new CA is trusted.
	exampletest.WriteCAs(t, cas, old, next)
	until("the trusted CAs have changed")
	both := old.Pool()
	both.AddCert(next.Cert)
	server.SetClientCAs(both)
	cert, _ = next.Issue(t)
	server.Update(cert)
	own, third := next.Issue(t)
	files.Write(t, own)
	until(seen(third))
	exampletest.WriteCAs(t, cas, next)
	until("the trusted CAs have changed")
	server.SetClientCAs(next.Pool())
	for range 10 {
		until(seen(third))
	}

	// What is not trusted any more is refused.
	cert, _ = old.Issue(t)
	server.Update(cert)
	server.Store().DrainAll(0)
	for !strings.Contains(client.Line(), "signed by unknown authority") {
	}
}

// serve answers with the serial numbers of the clients' certificates.
func serve(t *testing.T, manager *keyturn.CertAuthManager) (url string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		TLSConfig:   manager.ServerConfig(),
		ConnContext: keyturn.ConnContext,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if keyturn.Draining(r.Context()) {
				w.Header().Set("Connection", "close")
			}
			fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
		}),
	}
	var done sync.WaitGroup
	done.Go(func() { _ = server.ServeTLS(manager.Store().Listener(listener), "", "") })
	return "https://" + listener.Addr().String(), func() { server.Close(); done.Wait() }
}
