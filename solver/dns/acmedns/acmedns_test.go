// SPDX-License-Identifier: Apache-2.0

package acmedns_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns"
	"github.com/keyturn/keyturn/solver/dns/acmedns"
	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
)

const subdomain = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a"

func config(url string) acmedns.Config {
	return acmedns.Config{
		URL: url, Username: "user", Password: "password",
		Subdomain: subdomain, FullDomain: subdomain + ".auth.example.test.",
	}
}

// TestService is against a server that answers as https://github.com/joohoi/acme-dns
// does: of an account it keeps the two newest records.
func TestService(t *testing.T) {
	var texts []string
	m := http.NewServeMux()
	m.HandleFunc("POST /base/update", func(w http.ResponseWriter, r *http.Request) {
		q := apitest.Read[struct{ Subdomain, Txt string }](t, r)
		if q.Subdomain != subdomain || len(q.Txt) != 43 {
			apitest.Write(w, 400, `{"error":"bad_txt"}`)
			return
		}
		texts = append(texts, q.Txt)
		apitest.Write(w, 200, `{"txt":"`+q.Txt+`"}`)
	})
	s := httptest.NewServer(apitest.Authorized(t, "X-Api-User", "user", apitest.Authorized(t, "X-Api-Key", "password", m)))
	defer s.Close()
	p, err := acmedns.New(config(s.URL + "/base/"))
	if err != nil {
		t.Fatal(err)
	}
	r := apitest.Record("one.thumbprint")
	r.Name, r.Zone = subdomain+".auth.example.test", ""
	if err := p.Present(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := p.CleanUp(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if len(texts) != 1 || texts[0] != r.Value {
		t.Fatalf("the server got %q", texts)
	}
	r.Value = "short"
	if err := p.Present(t.Context(), r); err == nil || !strings.Contains(err.Error(), "bad_txt") || strings.Contains(err.Error(), "password") {
		t.Fatal(err)
	}
	// The CNAME is missing: the name is the challenge's own.
	r.Name = "_acme-challenge.www.example.test"
	if err := p.Present(t.Context(), r); err == nil || !strings.Contains(err.Error(), "a CNAME to "+subdomain+".auth.example.test") {
		t.Fatal(err)
	}
}

func TestSettings(t *testing.T) {
	for want, change := range map[string]func(*acmedns.Config){
		"https":       func(c *acmedns.Config) { c.URL = "http://auth.example.test" },
		"full_domain": func(c *acmedns.Config) { c.FullDomain = "auth.example.test" },
	} {
		c := config("https://auth.example.test")
		if _, err := acmedns.New(c); err != nil {
			t.Fatal(err)
		}
		change(&c)
		if _, err := acmedns.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %v", want, err)
		}
	}
	p, err := acmedns.New(config("https://auth.example.test"))
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := dns.Provider(p).(dns.Keeper); ok && k.KeepsOthers() {
		t.Error("it has two records for all names: they have to wait for each other")
	}
}
