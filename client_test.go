// SPDX-License-Identifier: Apache-2.0

package keyturn_test

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn"
)

// shown returns the id of the certificate that is shown to a server, "" if none is.
func shown(t testing.TB, store *keyturn.Store, request *tls.CertificateRequestInfo) string {
	t.Helper()
	cert, err := store.GetClientCertificate(request)
	if err != nil || cert == nil {
		t.Fatalf("GetClientCertificate = %v, %v", cert, err)
	}
	if len(cert.Certificate) == 0 {
		return ""
	}
	for id := range store.All() {
		if held, ok := store.Get(id); ok && held == cert {
			return id
		}
	}
	t.Fatal("a certificate is shown that the store does not hold")
	return ""
}

func TestGetClientCertificate(t *testing.T) {
	a, b := newRoot(t, "a"), newRoot(t, "b")
	below := newAuthority(t, "below b", b)
	client := usages(x509.ExtKeyUsageClientAuth)
	ec, rsa, ed := tls.ECDSAWithP256AndSHA256, tls.PSSWithSHA256, tls.Ed25519
	ask := func(schemes []tls.SignatureScheme, cas ...*authority) *tls.CertificateRequestInfo {
		r := &tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: schemes}
		for _, ca := range cas {
			r.AcceptableCAs = append(r.AcceptableCAs, ca.cert.RawSubject)
		}
		return r
	}
	all := []tls.SignatureScheme{ec, rsa, ed}

	var store keyturn.Store
	if got := shown(t, &store, ask(all)); got != "" {
		t.Errorf("an empty store shows %q", got)
	}
	put(t, &store, "server", a.leaf(t, names("server.test"), usages(x509.ExtKeyUsageServerAuth)))
	if got := shown(t, &store, ask(all)); got != "" {
		t.Errorf("showed %q, which is for servers", got)
	}
	put(t, &store, "a rsa", a.leafFor(t, newKey(t, x509.RSA), names("client.test"), client))
	put(t, &store, "a", a.leaf(t, uris("spiffe://example.org/client"), client))
	put(t, &store, "b", below.leafFor(t, newKey(t, x509.Ed25519), names("client.test"), client))

	for _, test := range []struct {
		request *tls.CertificateRequestInfo
		want    string
	}{
		{ask(all), "b"},
		{ask(all, a), "a"},
		{ask(all, b), "b"},
		{ask(all, below), "b"},
		{ask(all, a, b), "b"},
		{ask([]tls.SignatureScheme{rsa}, a, b), "a rsa"},
		{ask([]tls.SignatureScheme{ec}), "a"},
		{ask([]tls.SignatureScheme{ec}, b), ""},
		{ask(all, newRoot(t, "c")), ""},
		{ask([]tls.SignatureScheme{tls.ECDSAWithP384AndSHA384}), ""},
	} {
		if got := shown(t, &store, test.request); got != test.want {
			t.Errorf("%v: showed %q, want %q", test.request.SignatureSchemes, got, test.want)
		}
	}
	put(t, &store, "a", a.leaf(t, names("a.test"), usages(x509.ExtKeyUsageServerAuth)))
	store.Remove("b")
	if got := shown(t, &store, ask(all)); got != "a rsa" {
		t.Errorf("showed %q, want what remains", got)
	}
}

func TestLazyClientCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newRoot(t, "root")
		request := &tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
		client, server := usages(x509.ExtKeyUsageClientAuth), usages(x509.ExtKeyUsageServerAuth)
		var store keyturn.Store
		var opened atomic.Int32
		lazy := func(id string, obtained int64, option leafOption) {
			l := lazily(root.leaf(t, uris("spiffe://example.org/x"), option), &opened)
			l.Client, l.Obtained = id != "server", time.Unix(obtained, 0)
			load(t, &store, id, l)
		}
		lazy("server", 4, server)
		lazy("old", 1, client)
		lazy("newest", 2, client)
		lazy("wrong", 3, server)
		if got := shown(t, &store, request); got != "newest" {
			t.Errorf("showed %q", got)
		}
		if _, ok := store.Info("wrong"); ok {
			t.Error("a certificate that is not for clients is held as one")
		}

		// Valid ones come first.
		put(t, &store, "short", root.leaf(t, names("c.test"), client, validity(-time.Hour, time.Hour)))
		for _, want := range []string{"short", "newest"} {
			if got := shown(t, &store, request); got != want {
				t.Errorf("showed %q, want %q", got, want)
			}
			time.Sleep(2 * time.Hour)
		}
	})
}

func TestLazyClientOpensNoMoreThanNeeded(t *testing.T) {
	root := newRoot(t, "root")
	request := &tls.CertificateRequestInfo{Version: tls.VersionTLS13, SignatureSchemes: []tls.SignatureScheme{tls.ECDSAWithP256AndSHA256}}
	var store keyturn.Store
	var opened, other atomic.Int32
	for id, l := range map[string]keyturn.Lazy{
		"new":    {Client: true, Obtained: time.Unix(2, 0), Open: lazily(root.leaf(t, names("a.test")), &opened).Open},
		"old":    {Client: true, Obtained: time.Unix(1, 0), Open: lazily(root.leaf(t, names("a.test")), &other).Open},
		"server": {Obtained: time.Unix(3, 0), Open: lazily(root.leaf(t, names("a.test")), &other).Open},
	} {
		load(t, &store, id, l)
	}
	for range 2 {
		if cert, err := store.GetClientCertificate(request); err != nil || len(cert.Certificate) == 0 {
			t.Errorf("GetClientCertificate = %v, %v", cert, err)
		}
	}
	if opened.Load() != 1 || other.Load() != 0 {
		t.Errorf("opened the newest %d times, others %d times", opened.Load(), other.Load())
	}
}
