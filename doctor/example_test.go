// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/keyturn/keyturn/doctor"
)

// Two looks at a server whose certificate is for example.com and signed by itself:
// as a client that does not know it, and as one that does but asks for another name.
func Example() {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	pool := x509.NewCertPool()

	for _, name := range []string{"example.com", "example.net"} {
		report := doctor.Examine(context.Background(), server.URL, doctor.Options{ServerName: name, Roots: pool})
		for _, f := range report.Findings {
			fmt.Println(f.Severity, f.Cause)
			fmt.Println("  ", f.Detail)
		}
		pool.AddCert(server.Certificate())
	}
	// Output:
	// error unknown-authority
	//    The leaf "example.com" is signed by itself, and is not in the pool.
	// error name-mismatch
	//    The certificate does not cover "example.net"; it is for "example.com", "*.example.com", "127.0.0.1", "::1".
}

// A client that explains why it could not connect.
func ExampleExplain() {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()

	_, err := server.Client().Get(server.URL)
	for _, f := range doctor.Explain(err) {
		fmt.Println(f.Cause)
		fmt.Println(f.Remedy)
	}
	// Output:
	// no-client-certificate
	// Give the client a certificate of a CA that the server knows (keyturn doctor --cert FILE --key FILE).
}
