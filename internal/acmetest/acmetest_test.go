// SPDX-License-Identifier: Apache-2.0

package acmetest_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"
	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/internal/acmetest"
	"github.com/keyturn/keyturn/solver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, acmetest.IgnorePebble()) }

// TestCA obtains a certificate by dns-01, which the CA really looks at.
func TestCA(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{ChainLength: 2, AlternateRoots: 1, NonceReject: 20})
	names := []string{"*.example.com", "www.example.com"}
	if n := ca.Finalized(); n != 0 {
		t.Fatalf("%d orders are finalised before there is one", n)
	}
	leaf, chains := order(t, ca, names)
	for i, chain := range chains {
		pool := x509.NewCertPool()
		pool.AddCert(ca.Roots()[i])
		intermediates := x509.NewCertPool()
		intermediates.AppendCertsFromPEM(chain.ChainPEM)
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: intermediates, DNSName: "a.example.com"}); err != nil {
			t.Errorf("chain %d: %v", i, err)
		}
		if n := strings.Count(string(chain.ChainPEM), "BEGIN"); n != 3 {
			t.Errorf("chain %d has %d certificates, want 3", i, n)
		}
	}
	if len(chains) != 2 {
		t.Errorf("%d chains, want 2", len(chains))
	}
	if n := ca.Finalized(names[1], names[0]); n != 1 {
		t.Errorf("%d orders for %v are finalised, want 1", n, names)
	}
	if n := ca.Finalized("other.example.com"); n != 0 {
		t.Errorf("%d orders for a name that nobody ordered", n)
	}
}

// TestValidates lets the answers be missing.
func TestValidates(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	ctx, client, account := register(t, ca)
	o, err := client.NewOrder(ctx, account, acme.Order{Identifiers: []acme.Identifier{{Type: "dns", Value: "www.example.com"}}})
	if err != nil {
		t.Fatal(err)
	}
	authz, err := client.GetAuthorization(ctx, account, o.Authorizations[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.InitiateChallenge(ctx, account, authz.Challenges[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := client.PollAuthorization(ctx, account, authz); err == nil {
		t.Fatal("an authorisation without an answer is valid")
	}
}

func register(t *testing.T, ca *acmetest.CA) (context.Context, *acme.Client, acme.Account) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.WebPool()}}
	t.Cleanup(transport.CloseIdleConnections)
	client := &acme.Client{Directory: ca.Directory(), HTTPClient: &http.Client{Transport: transport}, PollInterval: time.Millisecond}
	account, err := client.NewAccount(t.Context(), acme.Account{TermsOfServiceAgreed: true, PrivateKey: newKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	return t.Context(), client, account
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func order(t *testing.T, ca *acmetest.CA, names []string) (*x509.Certificate, []acme.Certificate) {
	t.Helper()
	ctx, client, account := register(t, ca)
	var wanted acme.Order
	for _, name := range names {
		wanted.Identifiers = append(wanted.Identifiers, acme.Identifier{Type: "dns", Value: name})
	}
	o, err := client.NewOrder(ctx, account, wanted)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range o.Authorizations {
		authorize(t, ca, client, account, url)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	if o, err = client.FinalizeOrder(ctx, account, o, csr); err != nil {
		t.Fatal(err)
	}
	chains, err := client.GetCertificateChain(ctx, account, o.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(chains[0].ChainPEM)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, chains
}

func authorize(t *testing.T, ca *acmetest.CA, client *acme.Client, account acme.Account, url string) {
	t.Helper()
	authz, err := client.GetAuthorization(t.Context(), account, url)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range authz.Challenges {
		if c.Type != solver.DNS01 {
			continue
		}
		done, err := ca.DNS.Solve(t.Context(), solver.Challenge{Type: c.Type, Name: c.Identifier.Value, Token: c.Token, KeyAuthorization: c.KeyAuthorization})
		if err != nil {
			t.Fatal(err)
		}
		// The client sends it again where no answer came, and what was taken already is
		// an error then: the authorisation says what became of it.
		_, asked := client.InitiateChallenge(t.Context(), account, c)
		if _, err := client.PollAuthorization(t.Context(), account, authz); err != nil {
			t.Fatal(errors.Join(err, asked))
		}
		if err := done(t.Context()); err != nil {
			t.Fatal(err)
		}
		if left := ca.DNS.TXTs("_acme-challenge." + c.Identifier.Value); len(left) > 0 {
			t.Errorf("records left behind: %q", left)
		}
	}
}

// TestRenewalInfo sets what the CA says, and has what it says itself.
func TestRenewalInfo(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	leaf, _ := order(t, ca, []string{"www.example.com"})
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	if err := ca.SetRenewalInfo(leaf, start, start.Add(time.Hour), "https://example.com/why"); err != nil {
		t.Fatal(err)
	}
	_, client, _ := register(t, ca)
	info, err := client.GetRenewalInfo(t.Context(), leaf)
	if err != nil {
		t.Fatal(err)
	}
	if !info.SuggestedWindow.Start.Equal(start) || info.ExplanationURL != "https://example.com/why" {
		t.Errorf("%+v", info)
	}
	if _, revoked := ca.Revoked(leaf); revoked {
		t.Error("it is revoked")
	}
}

// TestIntercept puts two handlers in front: the later one sees requests first.
func TestIntercept(t *testing.T) {
	ca := acmetest.Start(t, acmetest.Options{})
	for _, status := range []int{http.StatusTeapot, http.StatusTooManyRequests} {
		ca.Intercept(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		})
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: ca.WebPool()}}}
		resp, err := client.Get(ca.Directory())
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != status {
			t.Errorf("status %d, want %d", resp.StatusCode, status)
		}
	}
}

// TestDNS has two servers in one process that do not know each other's records.
func TestDNS(t *testing.T) {
	one, two := acmetest.StartDNS(t), acmetest.StartDNS(t)
	one.TXT("a.example.com", "first", "second")
	one.A("a.example.com", "192.0.2.1", "2001:db8::1")
	one.CAA("example.com", "issue", "ca.example")
	one.CNAME("b.example.com", "a.example.com")
	one.ServFail("broken.example.com")
	for _, test := range []struct {
		server *acmetest.DNS
		name   string
		kind   uint16
		rcode  int
		want   []string // of each record, what it ends with
	}{
		{one, "a.example.com.", dns.TypeTXT, dns.RcodeSuccess, []string{`"first"`, `"second"`}},
		{one, "b.example.com.", dns.TypeTXT, dns.RcodeSuccess, []string{"a.example.com.", `"first"`, `"second"`}},
		{one, "a.example.com.", dns.TypeA, dns.RcodeSuccess, []string{"192.0.2.1"}},
		{one, "a.example.com.", dns.TypeAAAA, dns.RcodeSuccess, []string{"2001:db8::1"}},
		{one, "example.com.", dns.TypeCAA, dns.RcodeSuccess, []string{`0 issue "ca.example"`}},
		{one, "broken.example.com.", dns.TypeCAA, dns.RcodeServerFailure, nil},
		{two, "a.example.com.", dns.TypeTXT, dns.RcodeSuccess, nil},
		{two, "a.example.com.", dns.TypeA, dns.RcodeSuccess, []string{"127.0.0.1"}},
	} {
		for _, network := range []string{"udp", "tcp"} {
			client := &dns.Client{Net: network}
			answer, _, err := client.ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(test.name, test.kind), test.server.Addr())
			if err != nil {
				t.Fatal(err)
			}
			good := answer.Rcode == test.rcode && len(answer.Answer) == len(test.want)
			for i := range test.want {
				good = good && strings.HasSuffix(answer.Answer[i].String(), test.want[i])
			}
			if !good {
				t.Errorf("%s over %s: %s; want %q", test.name, network, answer, test.want)
			}
		}
	}
}
