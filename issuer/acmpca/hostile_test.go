// SPDX-License-Identifier: Apache-2.0

package acmpca_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/internal/acmpcatest"
	"github.com/keyturn/keyturn/internal/hostileca"
	"github.com/keyturn/keyturn/issuer"
	"github.com/keyturn/keyturn/issuer/acmpca"
)

// front serves what might stand in the place of AWS, and answer GetCertificate.
func front(t *testing.T, timeout time.Duration, get http.HandlerFunc) *acmpca.Issuer {
	t.Helper()
	environment(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that it is noticed when the client goes
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch r.Header.Get("X-Amz-Target") {
		case "ACMPrivateCA.DescribeCertificateAuthority":
			hostileca.Say(200, `{"CertificateAuthority":{"Status":"ACTIVE","CertificateAuthorityConfiguration":{"SigningAlgorithm":"SHA256WITHRSA"}}}`)(w, r)
		case "ACMPrivateCA.IssueCertificate":
			hostileca.Say(200, `{"CertificateArn":"arn:aws:acm-pca:eu-west-1:1:certificate-authority/1/certificate/1"}`)(w, r)
		default:
			get(w, r)
		}
	}))
	t.Cleanup(server.Close)
	return open(t, acmpca.Config{ARN: unknownARN, Endpoint: server.URL, Timeout: timeout})
}

// certificates answers as GetCertificate.
func certificates(leaf []byte, chain ...[]byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		answer := map[string]string{"Certificate": hostileca.PEM(leaf), "CertificateChain": hostileca.PEM(chain...)}
		_ = json.NewEncoder(w).Encode(answer) // a failure shows at the client
	}
}

// TestWrongAnswers has each wrong answer end in an error, by itself or by
// issuer.Check.
func TestWrongAnswers(t *testing.T) {
	c := hostileca.Make(t)
	leaf, inter := c.Leaf, c.Intermediate
	for _, test := range []struct {
		title string
		get   http.HandlerFunc
		later time.Duration
		limit time.Duration // of a request
		want  string        // in the error; "" for none
	}{
		{title: "right", get: certificates(leaf, inter, c.Root)},
		{title: "other order", get: certificates(leaf, c.Root, inter)},

		{title: "other key", get: certificates(c.OtherKey, inter), want: issuer.ErrWrongKey.Error()},
		{title: "other name", get: certificates(c.OtherName, inter), want: issuer.ErrWrongNames.Error()},
		{title: "expired", get: certificates(leaf, inter), later: 2 * hostileca.Lifetime, want: issuer.ErrExpired.Error()},
		{title: "other use", get: certificates(c.ClientLeaf, c.ClientIntermediate), want: issuer.ErrWrongUsage.Error()},
		{title: "foreign chain", get: certificates(leaf, c.Stranger), want: "none of the 1 CA certificates"},
		{title: "no chain", get: certificates(leaf), want: "none of the 0 CA certificates"},
		{title: "endless chain", get: certificates(leaf, slices.Repeat([][]byte{inter}, 30)...), want: "more than 20 certificates"},
		{title: "no certificate", get: hostileca.Say(200, `{}`), want: "0 certificates, not one"},
		{title: "not a certificate", get: certificates([]byte("junk")), want: "malformed certificate"},
		{title: "not PEM", get: hostileca.Say(200, `{"Certificate":"MIIB"}`), want: "it is not PEM"},
		{title: "junk", get: hostileca.Say(200, `<html>hello</html>`), want: "(unreachable)"},
		{title: "other form", get: hostileca.Say(200, `{"Certificate":[1]}`), want: "(unreachable)"},
		{title: "page of a proxy", get: hostileca.Say(502, "<html>\nbad gateway"), want: "(serverError)"},
		{title: "endless", get: hostileca.Endless(`{"Certificate":"`), want: "more than 1048576 bytes"},
		{title: "hang", limit: 500 * time.Millisecond, get: hostileca.Hang, want: "no answer came in time"},
		{title: "many lines", get: hostileca.Say(400, `{"__type":"One\nTwo","message":"three\u001b[31m\nfour"}`), want: "three [31m four"},
	} {
		t.Run(test.title, func(t *testing.T) {
			c.Judge(t, front(t, test.limit, test.get), test.later, test.want, acmpcatest.SecretKey)
		})
	}
}

// TestRedirect has the endpoint lead elsewhere, where nothing is to come.
func TestRedirect(t *testing.T) {
	c := hostileca.Make(t)
	strayed := make(chan string, 3) // AWS's client makes three attempts
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		strayed <- r.Header.Get("X-Amz-Security-Token")
		certificates(c.Leaf, c.Intermediate)(w, r)
	}))
	t.Cleanup(elsewhere.Close)
	t.Setenv("AWS_SESSION_TOKEN", "session")
	ca := front(t, 0, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusFound)
	})
	c.Judge(t, ca, 0, "(unreachable)", acmpcatest.SecretKey)
	select {
	case token := <-strayed:
		t.Errorf("the request was sent on, with the session token %q", token)
	default:
	}
}

// TestNothingIsShown prints and encodes what holds credentials.
func TestNothingIsShown(t *testing.T) {
	environment(t)
	ca := open(t, acmpca.Config{ARN: unknownARN})
	all := hostileca.Shown(t, ca)
	if strings.Contains(all, acmpcatest.SecretKey) || strings.Count(all, unknownARN) != 10 {
		t.Errorf("it prints as %s", all)
	}
}

// TestNewRefuses configurations that cannot be meant.
func TestNewRefuses(t *testing.T) {
	environment(t)
	for want, c := range map[string]acmpca.Config{
		"no ARN is given":                       {},
		`"arn:aws:acm:eu-west-1:1:certificate"`: {ARN: "arn:aws:acm:eu-west-1:1:certificate"},
		`authority/1/certificate/2" is not`:     {ARN: "arn:aws:acm-pca:eu-west-1:1:certificate-authority/1/certificate/2"},
		`"arn:aws:acm-pca::1:`:                  {ARN: "arn:aws:acm-pca::1:certificate-authority/1"},
		`"web" is not a template`:               {ARN: unknownARN, Template: "web"},
		`"arn:aws:iam::1:role/V1" is not`:       {ARN: unknownARN, Template: "arn:aws:iam::1:role/V1"},
		"the timeout is -1ns":                   {ARN: unknownARN, Timeout: -1},
		"the patience is -1ns":                  {ARN: unknownARN, Patience: -1},
		"the lifetime is -1ns":                  {ARN: unknownARN, Lifetime: -1},
		"is not the https URL of a service":     {ARN: unknownARN, Endpoint: "http://pca.example.com"},
	} {
		if _, err := acmpca.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
