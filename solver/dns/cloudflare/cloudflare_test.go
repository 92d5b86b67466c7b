// SPDX-License-Identifier: Apache-2.0

package cloudflare_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/solver/dns/cloudflare"
	"github.com/keyturn/keyturn/solver/dns/internal/apitest"
)

// service answers as https://developers.cloudflare.com/api does.
func service(t *testing.T, s *apitest.Store) http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /client/v4/zones", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer reads" {
			t.Error("zones are not read with the token for that")
		}
		if r.FormValue("name") != apitest.Zone {
			apitest.Write(w, 200, `{"success":true,"result":[]}`)
			return
		}
		apitest.Write(w, 200, `{"success":true,"result":[{"id":"z1","name":"example.test"}]}`)
	})
	edit := http.NewServeMux()
	m.Handle("/", apitest.Authorized(t, "Authorization", "Bearer edits", edit))
	edit.HandleFunc("POST /client/v4/zones/z1/dns_records", func(w http.ResponseWriter, r *http.Request) {
		q := apitest.Read[struct{ Name, Type, Content string }](t, r)
		if q.Name != apitest.Name || q.Type != "TXT" {
			t.Errorf("%+v is set", q)
		}
		apitest.Write(w, 200, fmt.Sprintf(`{"success":true,"result":{"id":"%d"}}`, s.Add(strings.Trim(q.Content, `"`))))
	})
	edit.HandleFunc("DELETE /client/v4/zones/z1/dns_records/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id, err := strconv.Atoi(r.PathValue("id")); err != nil || !s.Delete(id) {
			apitest.Write(w, 404, `{"success":false,"errors":[{"code":81044,"message":"Record does not exist."}]}`)
			return
		}
		apitest.Write(w, 200, `{"success":true,"result":{"id":"1"}}`)
	})
	return m
}

func TestService(t *testing.T) {
	var s apitest.Store
	client := apitest.Client(t, service(t, &s), "api.cloudflare.com")
	apitest.Run(t, cloudflare.New(cloudflare.Config{APIToken: "edits", ZoneToken: "reads", HTTPClient: client}), &s)
}

// TestError holds that what a service says is in the error, but not without end,
// and the token is not.
func TestError(t *testing.T) {
	client := apitest.Client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		apitest.Write(w, 403, "the token is not valid "+strings.Repeat("x", 1<<20))
	}), "api.cloudflare.com")
	err := cloudflare.New(cloudflare.Config{APIToken: "secret", HTTPClient: client}).Present(t.Context(), apitest.Record("one"))
	if err == nil || !strings.Contains(err.Error(), "the token is not valid") || strings.Contains(err.Error(), "secret") || len(err.Error()) > 4096 {
		t.Fatal(err)
	}
}
