// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/internal/exampletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Clients of both protocols, which keep their connections, get to the new certificate
// without a failed request.
func TestRotation(t *testing.T) {
	ca, files := exampletest.NewCA(t), exampletest.NewPair(t)
	cert, first := ca.Issue(t)
	files.Write(t, cert)
	url := exampletest.Start(t, run, "--cert", files.Cert, "--key", files.Key, "--listen", "127.0.0.1:0", "--drain", "1h").After("serving on ")

	for _, http2 := range []bool{false, true} {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool()}, ForceAttemptHTTP2: http2}
		defer transport.CloseIdleConnections()
		client := http.Client{Transport: transport}
		served := func() string {
			response, err := client.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			if want := map[bool]string{false: "hello over HTTP/1.1\n", true: "hello over HTTP/2.0\n"}[http2]; string(body) != want {
				t.Errorf("answered %q, want %q", body, want)
			}
			return response.TLS.PeerCertificates[0].SerialNumber.String()
		}
		if got := served(); got != first {
			t.Errorf("served %s, want %s", got, first)
		}
		cert, second := ca.Issue(t)
		files.Write(t, cert)
		for got := first; got != second; got = served() {
			if got != first {
				t.Fatalf("served %s, want %s or %s", got, first, second)
			}
		}
		first = second
	}
}
