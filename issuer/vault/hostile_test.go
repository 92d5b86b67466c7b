// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/hostileca"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/issuertest"
	"github.com/keyturn/keyturn/issuer/vault"
)

// front serves what a Vault might that somebody has taken over.
func front(t *testing.T, h http.HandlerFunc) *vault.Issuer {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/lookup-self") {
			_, _ = fmt.Fprint(w, `{"data":{"ttl":0,"renewable":false}}`)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body) // so that it is noticed when the client goes
		h(w, r)
	}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	ca, err := vault.New(vault.Config{
		Address: server.URL, Roots: roots, Role: "web", Auth: vault.Token{Value: "hvs.secret"}, Timeout: 500 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
	return ca
}

// signing answers as the endpoint sign/ROLE.
func signing(leaf string, chain any, issuing any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		data := map[string]any{"certificate": leaf, "ca_chain": chain, "issuing_ca": issuing}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data}) // a failure shows at the client
	}
}

// TestWrongAnswers has each wrong answer end in an error, by itself or by
// issuer.Check, and right ones of other forms be taken.
func TestWrongAnswers(t *testing.T) {
	c, pem := hostileca.Make(t), hostileca.PEM
	leaf, inter, root, strange := pem(c.Leaf), pem(c.Intermediate), pem(c.Root), pem(c.Stranger)
	endless := hostileca.Endless(`{"errors":["`)
	for _, test := range []struct {
		title  string
		answer http.HandlerFunc
		want   string // in the error; "" for none
	}{
		{"chain", signing(leaf, []string{inter, root}, inter), ""},
		{"issuing CA alone", signing(leaf, nil, inter), ""},
		{"other order", signing(leaf, []string{root, inter}, inter), ""},
		{"one text", signing(leaf, inter+root, nil), ""},

		{"other key", signing(pem(c.OtherKey), []string{inter}, inter), issuer.ErrWrongKey.Error()},
		{"other name", signing(pem(c.OtherName), []string{inter}, inter), issuer.ErrWrongNames.Error()},
		{"CA as the leaf", signing(inter, []string{root}, root), "another key"},
		{"foreign chain", signing(leaf, []string{strange}, strange), "none of the 1 CA certificates"},
		{"no chain", signing(leaf, nil, nil), "none of the 0 CA certificates"},
		{"two leaves", signing(leaf+leaf, []string{inter}, inter), "2 certificates"},
		{"no certificate", signing("", []string{inter}, inter), "0 certificates"},
		{"not PEM", signing("MIIB", []string{inter}, inter), "not PEM"},
		{"not a certificate", signing(pem([]byte("junk")), []string{inter}, inter), "certificate:"},
		{"chain of numbers", signing(leaf, 7, inter), "ca_chain"},
		{"endless chain", signing(leaf, strings.Repeat(inter, 30), inter), "more than 20 certificates"},
		{"no data", hostileca.Say(200, `{}`), "empty"},
		{"empty", hostileca.Say(200, ``), "empty"},
		{"junk", hostileca.Say(200, `<html>hello</html>`), "not one of Vault's"},
		{"page of a proxy", hostileca.Say(502, "<html>\nbad gateway"), "not one of Vault's: <html> bad gateway"},
		{"other form", hostileca.Say(200, `{"data":[1,2]}`), "not one of Vault's"},
		{"wrapped", hostileca.Say(200, `{"wrap_info":{"token":"hvs.wrapped"}}`), "empty"},
		{"endless", endless, "more than 1048576 bytes"},
		{"endless error", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500); endless(w, r) }, "more than 1048576 bytes"},
		{"hang", hostileca.Hang, "no answer came in time"},
		{"downgrade", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://active.example.com/v1/"+r.URL.Path, http.StatusTemporaryRedirect)
		}, "downgrade"},
		{"many lines", hostileca.Say(400, `{"errors":["one\ntwo\u001b[31m\n\tthree"]}`), "one; two [31m; three"},
	} {
		t.Run(test.title, func(t *testing.T) {
			i := front(t, test.answer)
			c.Judge(t, i, 0, test.want, "hvs.")
		})
	}
}

// TestContextEnds has the caller's own limit end a call, and be what the error says.
func TestContextEnds(t *testing.T) {
	asked := make(chan struct{})
	ca := front(t, func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		hostileca.Hang(nil, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	csr := issuertest.Named(t, "www.example.com")
	for range 20 { // the first time while it waits, then before
		if _, err := ca.Issue(ctx, csr, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v, want %v in it", err, context.Canceled)
		}
	}
}

// TestNothingIsShown prints and encodes what holds secrets.
func TestNothingIsShown(t *testing.T) {
	const secret = "hvs.CAESI-secret"
	for _, auth := range []vault.Auth{
		vault.Token{Value: secret}, vault.AppRole{RoleID: "id", SecretID: secret}, vault.JWT{Role: "web", Value: secret},
	} {
		c := vault.Config{Address: "https://vault.example.com:8200", Role: "web", Mount: "pki", Auth: auth}
		ca, err := vault.New(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ca.Close() }) // it keeps nothing alive
		for _, v := range []any{auth, c, &c, ca, []any{auth, c}} {
			all := hostileca.Shown(t, v)
			if strings.Contains(all, secret) || strings.Contains(all, "CAESI") {
				t.Errorf("%T is shown: %s", v, all)
			}
		}
		if got := ca.String(); got != "role web of pki at https://vault.example.com:8200" {
			t.Errorf("an issuer is called %q", got)
		}
	}
}
