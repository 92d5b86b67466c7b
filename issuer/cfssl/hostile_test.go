// SPDX-License-Identifier: Apache-2.0

package cfssl_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/hostileca"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/cfssl"
	"github.com/keyturn/keyturn/issuer/issuertest"
)

// front serves what a CFSSL might that somebody has taken over: info, and sign.
func front(t *testing.T, timeout time.Duration, info, sign http.HandlerFunc) *cfssl.Issuer {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that it is noticed when the client goes
		if strings.HasSuffix(r.URL.Path, "/info") {
			info(w, r)
			return
		}
		sign(w, r)
	}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	ca, err := cfssl.New(cfssl.Config{Address: server.URL + "/", Roots: roots, AuthKey: key, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
	return ca
}

// certificates answers as info, and as sign.
func certificates(ders ...[]byte) http.HandlerFunc {
	return certificate(hostileca.PEM(ders...))
}

func certificate(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		answer := map[string]any{"success": true, "result": map[string]string{"certificate": text}, "errors": []any{}}
		_ = json.NewEncoder(w).Encode(answer) // a failure shows at the client
	}
}

// inTurn answers by one after the other.
func inTurn(all ...http.HandlerFunc) http.HandlerFunc {
	var n atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) { all[int(n.Add(1)-1)%len(all)](w, r) }
}

// TestWrongAnswers has each wrong answer end in an error, by itself or by
// issuer.Check.
func TestWrongAnswers(t *testing.T) {
	c := hostileca.Make(t)
	info, good := certificates(c.Intermediate), certificates(c.Leaf)
	endless := hostileca.Endless(`{"success":true,"result":{"certificate":"`)
	for _, test := range []struct {
		title      string
		info, sign http.HandlerFunc
		later      time.Duration
		limit      time.Duration // of a request
		want       string        // in the error; "" for none
	}{
		{title: "right", info: info, sign: good},
		{title: "another CA in between", info: inTurn(certificates(c.Stranger), info), sign: good},

		{title: "other key", sign: certificates(c.OtherKey), want: issuer.ErrWrongKey.Error()},
		{title: "other name", sign: certificates(c.OtherName), want: issuer.ErrWrongNames.Error()},
		{title: "expired", sign: good, later: 2 * hostileca.Lifetime, want: issuer.ErrExpired.Error()},
		{title: "other use", info: certificates(c.ClientIntermediate), sign: certificates(c.ClientLeaf), want: issuer.ErrWrongUsage.Error()},
		{title: "CA as the leaf", info: certificates(c.Root), sign: certificates(c.Intermediate), want: issuer.ErrWrongKey.Error()},
		{title: "foreign CA", info: certificates(c.Stranger), sign: good, want: "none of the 1 CA certificates"},
		{title: "no CA", info: certificate(""), sign: good, want: "0 certificates, not one"},
		{title: "two leaves", sign: certificates(c.Leaf, c.Leaf), want: "2 certificates, not one"},
		{title: "endless chain", sign: certificates(slices.Repeat([][]byte{c.Leaf}, 30)...), want: "more than 20 certificates"},
		{title: "not PEM", sign: certificate("MIIB"), want: "it is not PEM"},
		{title: "not a certificate", sign: certificates([]byte("junk")), want: "malformed certificate"},
		{title: "no result", sign: hostileca.Say(200, `{"success":true}`), want: "not one of CFSSL's"},
		{title: "no reason", sign: hostileca.Say(200, `{"success":false}`), want: "gives no reason"},
		{title: "other form", sign: hostileca.Say(200, `{"success":true,"result":[1]}`), want: "not one of CFSSL's"},
		{title: "empty", sign: hostileca.Say(200, ""), want: "not one of CFSSL's: 200 OK"},
		{title: "junk", sign: hostileca.Say(200, "<html>hello</html>"), want: "not one of CFSSL's: <html>hello</html>"},
		{title: "page of a proxy", info: hostileca.Say(502, "<html>\nbad gateway"), want: "not one of CFSSL's: <html> bad gateway (serverError)"},
		{title: "endless", sign: endless, want: "more than 1048576 bytes"},
		{title: "endless CA", info: endless, want: "more than 1048576 bytes"},
		{title: "hang", sign: hostileca.Hang, limit: 500 * time.Millisecond, want: "no answer came in time"},
		{title: "redirect", sign: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://ca.example.com", http.StatusTemporaryRedirect)
		}, want: "not one of CFSSL's: 307"},
		{title: "many lines", sign: hostileca.Say(400, `{"success":false,"errors":[{"code":1,"message":"one\ntwo\u001b[31m"},{"message":"three"}]}`), want: "one two [31m; three"},
	} {
		t.Run(test.title, func(t *testing.T) {
			if test.info == nil {
				test.info = info
			}
			i := front(t, test.limit, test.info, test.sign)
			c.Judge(t, i, test.later, test.want, key)
		})
	}
}

// TestRenewedCA has the CA's certificate renewed, with the same key. The former one has
// signed what comes after it, too, and will have ended before that.
func TestRenewedCA(t *testing.T) {
	signer, err := issuer.ECDSAP256.Generate()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Now().Add(-time.Hour),
		BasicConstraintsValid: true, IsCA: true,
	}
	above := &x509.Certificate{Subject: pkix.Name{CommonName: "Root"}}
	var current atomic.Pointer[[]byte]
	renew := func(lifetime time.Duration) []byte {
		template.NotAfter = time.Now().Add(lifetime)
		der, err := x509.CreateCertificate(rand.Reader, template, above, signer.Public(), signer)
		if err != nil {
			t.Fatal(err)
		}
		current.Store(&der)
		return der
	}
	csr := issuertest.Named(t, "www.example.com")
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: csr.DNSNames, NotAfter: time.Now().Add(time.Hour),
	}, template, csr.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	ca := front(t, 0, func(w http.ResponseWriter, r *http.Request) { certificates(*current.Load())(w, r) }, certificates(leaf))
	for _, lifetime := range []time.Duration{time.Minute, 24 * time.Hour} {
		want := renew(lifetime)
		chain, err := ca.Issue(t.Context(), csr, 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(chain) != 2 || !bytes.Equal(chain[1], want) {
			t.Errorf("the chain has %d certificates, and not the CA's newest", len(chain))
		}
	}
}

// TestRetryAfter has a proxy before the server say when to come back.
func TestRetryAfter(t *testing.T) {
	ca := front(t, 0, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusServiceUnavailable)
	}, nil)
	_, err := ca.Issue(t.Context(), issuertest.Named(t, "www.example.com"), 0)
	after, said := issuer.RetryAfter(err)
	if left := time.Until(after); !said || left < 59*time.Minute || left > time.Hour {
		t.Errorf("it is to be asked again in %s (%v): %v", left, said, err)
	}
}

// TestContextEnds has the caller's own limit end a call, and be what the error says.
func TestContextEnds(t *testing.T) {
	asked := make(chan struct{})
	ca := front(t, 0, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		hostileca.Hang(nil, r)
	}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := ca.Issue(ctx, issuertest.Named(t, "www.example.com"), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v in it", err, context.Canceled)
	}
}

// TestNothingIsShown prints and encodes what holds the key.
func TestNothingIsShown(t *testing.T) {
	c := cfssl.Config{Address: "https://ca.example.com:8888", Label: "blue", Profile: "web", AuthKey: key}
	ca, err := cfssl.New(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{c, &c, ca, []any{c}} {
		all := hostileca.Shown(t, v)
		if strings.Contains(all, key) || !strings.Contains(all, "profile web of blue at https://ca.example.com:8888") {
			t.Errorf("%T prints as %s", v, all)
		}
	}
}

// TestNewRefuses configurations that cannot be meant, without a word of the key.
func TestNewRefuses(t *testing.T) {
	const address = "https://ca.example.com:8888"
	for want, c := range map[string]cfssl.Config{
		"no address is given":   {},
		"is not a URL of CFSSL": {Address: "ca.example.com"},
		"has a user":            {Address: "https://me:" + key + "@ca.example.com"},
		"is not https":          {Address: "http://ca.example.com:8888"},
		"cannot be negative":    {Address: address, Timeout: -1},
		"leave one of them out": {Address: address, AuthKey: key, AuthKeyFile: "f"},
		"give both or neither":  {Address: address, CertFile: "f"},
		"not in hexadecimal":    {Address: address, AuthKey: key + "x"},
		"names a place (env:)":  {Address: address, AuthKey: "env:CFSSL_" + key},
	} {
		_, err := cfssl.New(c)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), key) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := cfssl.New(cfssl.Config{Address: "me:" + key + "@ca.example.com"}); err == nil || strings.Contains(err.Error(), key) {
		t.Errorf("a password without a scheme: %v", err)
	}
	if _, err := cfssl.New(cfssl.Config{Address: "http://127.0.0.1:8888"}); err != nil {
		t.Error(err)
	}
}
