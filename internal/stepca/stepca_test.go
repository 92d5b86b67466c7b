// SPDX-License-Identifier: Apache-2.0

package stepca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"golang.org/x/crypto/acme"
)

// TestIssues has a certificate issued for an address by another ACME client than
// Keyturn's.
func TestIssues(t *testing.T) {
	ca := Start(t, Options{Lifetime: 10 * time.Minute})
	client := newClient(t, ca)
	mux := http.NewServeMux()
	listen(t, ca.HTTPPort, mux)

	ctx := t.Context()
	order, err := client.AuthorizeOrder(ctx, acme.IPIDs(host))
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range order.AuthzURLs {
		authz, err := client.GetAuthorization(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range authz.Challenges {
			if c.Type != "http-01" {
				continue
			}
			text, err := client.HTTP01ChallengeResponse(c.Token)
			if err != nil {
				t.Fatal(err)
			}
			mux.HandleFunc(client.HTTP01ChallengePath(c.Token), func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(text)) // a failure shows at the CA
			})
			if _, err := client.Accept(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
	}
	if order, err = client.WaitOrder(ctx, order.URI); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{IPAddresses: []net.IP{net.ParseIP(host)}}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := client.CreateOrderCert(ctx, order.FinalizeURL, csr, true)
	if err != nil {
		t.Fatal(err)
	}
	check(t, ca, chain)
}

// check looks at a chain as a client does, and at the lifetime.
func check(t *testing.T, ca *CA, chain [][]byte) {
	t.Helper()
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	intermediates := x509.NewCertPool()
	for _, der := range chain[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		intermediates.AddCert(cert)
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.IssuerRoots(), Intermediates: intermediates, DNSName: host})
	if err != nil {
		t.Error(err)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life != 11*time.Minute {
		t.Errorf("the lifetime is %s, want 10 min and one before now", life)
	}
}

func newClient(t *testing.T, ca *CA) *acme.Client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ca.WebRoots()))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &acme.Client{Key: key, DirectoryURL: ca.Directory(), HTTPClient: &http.Client{Transport: transport}}
	if _, err := client.Register(t.Context(), new(acme.Account), acme.AcceptTOS); err != nil {
		t.Fatal(err)
	}
	return client
}

func listen(t *testing.T, port int, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	_ = server.Listener.Close() // its own is not needed
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
}
