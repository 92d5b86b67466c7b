// SPDX-License-Identifier: Apache-2.0

package google_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/google"
	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
)

type set struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Rrdatas []string `json:"rrdatas"`
}

// service answers as https://cloud.google.com/dns/docs/reference/rest/v1 does, and
// gives tokens.
func service(t *testing.T, s *apitest.Store) http.Handler {
	m, api := http.NewServeMux(), http.NewServeMux()
	m.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("assertion") == "" {
			t.Error("a token is asked for without an assertion")
		}
		apitest.Write(w, 200, `{"access_token":"token","token_type":"Bearer","expires_in":3600}`)
	})
	m.Handle("/dns/", apitest.Authorized(t, "Authorization", "Bearer token", api))
	api.HandleFunc("GET /dns/v1/projects/p/managedZones", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("dnsName") != apitest.Zone+"." {
			t.Errorf("the zone %s is looked for", r.FormValue("dnsName"))
		}
		apitest.Write(w, 200, `{"managedZones":[{"name":"hidden","visibility":"private"},{"name":"z1","visibility":"public"}]}`)
	})
	api.HandleFunc("GET /dns/v1/projects/p/managedZones/z1/rrsets", func(w http.ResponseWriter, _ *http.Request) {
		var sets []set
		if values := s.Values(); len(values) > 0 {
			sets = []set{{apitest.Name + ".", "TXT", values}}
		}
		b, err := json.Marshal(map[string]any{"rrsets": sets})
		if err != nil {
			t.Error(err)
		}
		apitest.Write(w, 200, string(b))
	})
	api.HandleFunc("POST /dns/v1/projects/p/managedZones/z1/changes", func(w http.ResponseWriter, r *http.Request) {
		q := apitest.Read[struct{ Additions, Deletions []set }](t, r)
		if len(q.Deletions) > 0 {
			s.Set()
		}
		for _, one := range q.Additions {
			if one.Name != apitest.Name+"." || one.Type != "TXT" {
				t.Errorf("%+v is set", one)
			}
			s.Set(one.Rrdatas...)
		}
		apitest.Write(w, 200, `{"id":"1","status":"done"}`)
	})
	return m
}

func TestService(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	account, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "a@p.example.test", "project_id": "other",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"token_uri":   "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	var s apitest.Store
	p, err := google.New(google.Config{
		Project: "p", ServiceAccount: dns.Secret(account),
		HTTPClient: apitest.Client(t, service(t, &s), "oauth2.googleapis.com", "dns.googleapis.com"),
	})
	if err != nil {
		t.Fatal(err)
	}
	apitest.Run(t, p, &s)
}

func TestSettings(t *testing.T) {
	_, err := google.New(google.Config{Project: "p", ServiceAccount: `{"private_key": "secret"`})
	if err == nil || strings.Contains(err.Error(), "secret\"") {
		t.Fatal(err)
	}
}
